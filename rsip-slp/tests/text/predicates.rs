//! Predicates.

use rsip_slp::text::{AttributeList, Predicate};

fn holds(predicate: &str, attributes: &str) -> bool {
    let attributes = AttributeList::parse(attributes).expect("an attribute list");
    Predicate::parse(predicate).expect("a predicate").is_satisfied_by(&attributes)
}

#[test]
fn the_rfcs_examples() {
    assert!(holds("(x=3)", "(x=1,2,3)"));
    assert!(holds("(!(Y=0))", "(y=0,1)"), "Y can be nonzero");
    assert!(!holds("(x=33)", "(x=true)"));
    assert!(holds("(y=foo)", "(y=FOO)"));
    assert!(holds("(|(x=33)(y=foo))", "(x=true),(y=FOO)"));
    assert!(holds("(x=34*)", "(x=34foo)"));
    assert!(!holds("(x=34*)", "(x=3432)"), "strings do not match integers");
    assert!(holds("(&(q<=3)(speed>=1000))", "(q=3),(speed=1000)"));
    assert!(!holds("(&(q<=3)(speed>=1000))", "(q=3),(speed=999)"));
    assert!(holds("(keyword=*)", "keyword"));
    assert!(holds("(user=wump)", "(user=Wump)"));
    assert!(holds("(name=*bob*)", "(name=some bob I know)"));
}

#[test]
fn the_predicates_of_hosts() {
    let gateway =
        "(ipsec-support=false),(ike-support=false),(tunnel-type=IP-IP,GRE),(transport=TCP,UDP),(load=12)";
    for yes in [
        "",
        "  ",
        "(&(tunnel-type=IP-IP)(transport=TCP))",
        "(&(tunnel-type=gre)(|(transport=tcp)(load<=5)))",
        "(load<=12)",
        "(&(load>=0)(load<=100))",
        "(ipsec-support=FALSE)",
        "(!(ipsec-support=true))",
        " ( & ( load = 12 ) ( transport = U* ) ) ",
        "(tunnel-type~=ip-ip)",
        "(!(x=*))",
        "(!(x=1))",
    ] {
        assert!(holds(yes, gateway), "{yes}");
    }
    for no in [
        "(tunnel-type=L2TP)",
        "(load>=13)",
        "(load<=12foo)",
        "(ipsec-support=true)",
        "(ipsec-support<=true)",
        "(ipsec-support=f*)",
        "(load=1*)",
        "(x=*)",
        "(x=1)",
        "(!(load=*))",
        "(!(load=12))",
        "(&(load=12)(x=*))",
        "(|(x=1)(x=2))",
        "(!(|(load=12)(x=1)))",
    ] {
        assert!(!holds(no, gateway), "{no}");
    }
}

#[test]
fn strings_are_ordered_without_regard_to_case_and_white_space() {
    assert!(holds("(name>=APPLE)", "(name=banana)"));
    assert!(holds("(name<=b  A)", "(name=B a)"));
    assert!(!holds("(name<=apple)", "(name=Banana)"));
    assert!(holds("(name= Two  Words )", "(name=two words)"));
}

#[test]
fn what_is_escaped_is_taken_as_it_is() {
    assert!(holds("(a=\\28x\\29)", "(a=\\28X\\29)"));
    assert!(holds("(a=b\\2ac)", "(a=b*c)"));
    assert!(!holds("(a=b\\2ac)", "(a=bxc)"));
    assert!(holds("(a=\\ff\\00\\01)", "(a=\\FF\\00\\01)"));
    assert!(!holds("(a=\\ff\\00)", "(a=\\FF\\00\\01)"));
}

#[test]
fn what_is_no_predicate_is_refused() {
    for text in [
        "a=1",
        "(a=1",
        "(a=1))",
        "(a)",
        "()",
        "(&)",
        "(|)",
        "(!)",
        "(!(a=1)(b=2))",
        "(&(a=1)",
        "(&(a=1)b)",
        "(=1)",
        "(a=)",
        "(a<=1*)",
        "(a>=*)",
        "(a:=1)",
        "(a:dn:=1)",
        "(a=\\41)",
        "(a=\\2)",
        "(a=b(c)",
        "((a=1))",
        "(a=1)(b=2)",
        "(a>1)",
    ] {
        assert!(Predicate::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_depth_is_bounded() {
    let nested = |depth: usize| format!("{}(a=1){}", "(!".repeat(depth), ")".repeat(depth));
    assert!(Predicate::parse(&nested(31)).is_ok());
    assert!(Predicate::parse(&nested(32)).is_err());
    assert!(Predicate::parse(&nested(20_000)).is_err());
    assert!(Predicate::parse(&"(&".repeat(30_000)).is_err());
}

//! What one check has to say.

use std::fmt;

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or may work; somebody should look.
    Warn,
    /// Something does not work because of it.
    Fail,
}

/// The troubles that people have had with RSIP hosts since 2002, by the names that they search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Trouble {
    /// Nobody listens at the gateway's port.
    #[serde(rename = "connection refused")]
    ConnectionRefused,
    /// No registration is to be had.
    #[serde(rename = "unable to register")]
    UnableToRegister,
    /// No device, or no programs on it.
    #[serde(rename = "unable to create tunnel")]
    UnableToCreateTunnel,
    /// Registered, but without ports.
    #[serde(rename = "unable to get port assignments")]
    UnableToGetPorts,
    /// Packets do not take the tunnel.
    #[serde(rename = "unable to set default route")]
    UnableToSetDefaultRoute,
    /// Large packets do not come through.
    #[serde(rename = "MTU problem")]
    Mtu,
    /// Packets go and no answer comes.
    #[serde(rename = "packets that vanish")]
    VanishingPackets,
    /// SLP finds no gateway.
    #[serde(rename = "no service:rsip")]
    NoService,
    /// A leased port is used by somebody who does not mean the leased address.
    #[serde(rename = "conflict with local ports")]
    PortConflict,
    /// There is no such interface.
    #[serde(rename = "unknown interface")]
    UnknownInterface,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionRefused => "connection refused",
            Self::UnableToRegister => "unable to register",
            Self::UnableToCreateTunnel => "unable to create tunnel",
            Self::UnableToGetPorts => "unable to get port assignments",
            Self::UnableToSetDefaultRoute => "unable to set default route",
            Self::Mtu => "MTU problem",
            Self::VanishingPackets => "packets that vanish",
            Self::NoService => "no service:rsip",
            Self::PortConflict => "conflict with local ports",
            Self::UnknownInterface => "unknown interface",
        })
    }
}

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: a name that stays.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// The trouble's well-known name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// What was seen.
    pub saw: String,
    /// What that means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, saw: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, trouble: None, saw: saw.into(), means: None, todo: None }
    }

    /// Somebody should look.
    pub fn warn(
        check: &'static str,
        saw: impl Into<String>,
        means: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            means: Some(means.into()),
            todo: Some(todo.into()),
            ..Self::ok(check, saw)
        }
    }

    /// It does not work.
    pub fn fail(
        check: &'static str,
        saw: impl Into<String>,
        means: impl Into<String>,
        todo: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(check, saw, means, todo) }
    }

    /// It is one of the well-known troubles.
    #[must_use]
    pub const fn known_as(mut self, trouble: Trouble) -> Self {
        self.trouble = Some(trouble);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        write!(f, "{verdict}  {}: ", self.check)?;
        if let Some(trouble) = self.trouble {
            write!(f, "{trouble}: ")?;
        }
        f.write_str(&self.saw)?;
        for (word, text) in [("means", &self.means), ("do", &self.todo)] {
            if let Some(text) = text {
                write!(f, "\n      {word}: {text}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_it_saw_what_it_means_and_what_to_do() {
        let finding = Finding::fail("gateway", "10.0.0.1:4555 refuses", "nobody listens", "start rsipd")
            .known_as(Trouble::ConnectionRefused);
        assert_eq!(
            finding.to_string(),
            "FAIL  gateway: connection refused: 10.0.0.1:4555 refuses\n      means: nobody listens\n      do: start rsipd"
        );
        let json = serde_json::to_value(&finding).expect("plain data");
        assert_eq!((&json["verdict"], &json["trouble"]), (&"fail".into(), &"connection refused".into()));
        assert_eq!(Finding::ok("kernel", "6.1").to_string(), "ok    kernel: 6.1");
    }

    #[test]
    fn data_has_the_same_names_as_the_text() {
        use Trouble::*;
        for trouble in [
            ConnectionRefused,
            UnableToRegister,
            UnableToCreateTunnel,
            UnableToGetPorts,
            UnableToSetDefaultRoute,
            Mtu,
            VanishingPackets,
            NoService,
            PortConflict,
            UnknownInterface,
        ] {
            let json = serde_json::to_value(trouble).expect("plain data");
            assert_eq!(json, serde_json::Value::from(trouble.to_string()));
        }
    }
}

//! What a decoder sees in a message: the same shape for tshark and for us, so that the two can be compared by `==`.

use std::fmt;

/// A message as a decoder shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Version, message type and length.
    pub header: Vec<Shown>,
    /// The parameters, in the order in which they stand.
    pub parameters: Vec<Parameter>,
    /// What the decoder complains about.
    pub complaints: Vec<String>,
}

/// A parameter as a decoder shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameter {
    /// The line that stands for the whole.
    pub label: String,
    /// Where in the message it begins.
    pub offset: usize,
    /// Bytes that the decoder counts to it, type and length included.
    pub size: usize,
    /// Type and length, then what is in the value.
    pub fields: Vec<Shown>,
}

/// One field: its name to the decoder, its value, and the text that people are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// As in display filters.
    pub name: String,
    /// The value, as in display filters.
    pub value: String,
    /// The whole line.
    pub text: String,
}

impl Shown {
    /// A field.
    pub fn new(name: &str, value: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: value.into(), text: text.into() }
    }
}

/// tshark cuts lines near 240 characters, each version in its own way. Only a name can be that long.
const LONGEST_NAME_SHOWN: usize = 190;

impl Decoded {
    /// Without the lines that show a long name, on which no two versions agree. The name itself stays.
    #[must_use]
    pub fn without_long_lines(mut self) -> Self {
        for parameter in &mut self.parameters {
            let name = parameter.fields.iter_mut().find(|shown| shown.name == "rsip.parameter.fqdn");
            if let Some(name) = name.filter(|name| name.value.len() > LONGEST_NAME_SHOWN) {
                name.text.clear();
                parameter.label.clear();
            }
        }
        self
    }
}

impl fmt::Display for Decoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shown in &self.header {
            writeln!(f, "    {shown}")?;
        }
        for parameter in &self.parameters {
            writeln!(f, "    {parameter}")?;
        }
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "    complaint: {complaint}"))
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes at {})", self.label, self.size, self.offset)?;
        self.fields.iter().try_for_each(|shown| write!(f, "; {shown}"))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} [{}]", self.name, self.value, self.text)
    }
}

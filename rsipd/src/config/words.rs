//! Keys whose value is one of a few words, and paths.

use std::path::PathBuf;

use rsip_proto::wire::TunnelType;
use rsip_slp::text::ScopeList;
use rsip_sys::logging;

use super::settings::DatapathChoice;
use super::value::{self, Complaint, Value};

/// One type, or a list of them in order of preference. Letters and the hyphen are as anybody likes.
pub(super) fn tunnels(value: &Value<'_>) -> Result<Vec<TunnelType>, Complaint> {
    let items = if value::string(value).is_ok() { vec![value] } else { value::items(value, true)? };
    let mut tunnels = Vec::new();
    for item in items {
        let name = value::string(item)?;
        let tunnel = match name.to_ascii_lowercase().as_str() {
            "ip-ip" | "ipip" => Ok(TunnelType::IpIp),
            "gre" => Ok(TunnelType::Gre),
            "l2tp" => Err(format!("this version has no {name} tunnels")),
            _ => Err(format!("{name:?} is not a tunnel type")),
        };
        match tunnel {
            Ok(tunnel) if tunnels.contains(&tunnel) => {
                return Err(Complaint { span: item.span(), what: format!("{name:?} is listed twice") });
            }
            Ok(tunnel) => tunnels.push(tunnel),
            Err(what) => return Err(Complaint { span: item.span(), what }),
        }
    }
    if tunnels.is_empty() {
        return Err(Complaint { span: value.span(), what: "is empty".to_owned() });
    }
    Ok(tunnels)
}

pub(super) fn datapath(value: &Value<'_>) -> Result<DatapathChoice, Complaint> {
    let what = match value::string(value)? {
        "auto" => return Ok(DatapathChoice::Auto),
        "ebpf" => return Ok(DatapathChoice::Ebpf),
        "kernel" => "the kernel data path is not in this version".to_owned(),
        name => format!("{name:?} is not a data path"),
    };
    Err(Complaint { span: value.span(), what })
}

pub(super) fn scopes(value: &Value<'_>) -> Result<ScopeList, Complaint> {
    let items = value::items(value, true)?;
    let names = items.into_iter().map(value::string).collect::<Result<Vec<_>, _>>()?;
    match ScopeList::from_names(&names) {
        Ok(scopes) if !scopes.is_empty() => Ok(scopes),
        Ok(_) => Err(Complaint { span: value.span(), what: "is empty".to_owned() }),
        Err(_) => Err(Complaint { span: value.span(), what: "names an empty scope".to_owned() }),
    }
}

pub(super) fn log_level(value: &Value<'_>) -> Result<String, Complaint> {
    let level = value::string(value)?;
    if logging::LEVELS.contains(&level) {
        return Ok(level.to_owned());
    }
    Err(Complaint { span: value.span(), what: format!("{level:?} is not a level") })
}

pub(super) fn absolute_path(value: &Value<'_>) -> Result<PathBuf, Complaint> {
    let path = PathBuf::from(value::string(value)?);
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(path);
    }
    Err(Complaint {
        span: value.span(),
        what: format!("{} is not an absolute path of a file", path.display()),
    })
}

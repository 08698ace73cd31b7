//! Proxies, as the environment names them: one for each scheme, and the hosts that are asked without one. Knows no
//! requests.

use ureq::Proxy;

/// The proxy for addresses of a scheme, by `https_proxy` or `http_proxy`, `all_proxy` and `no_proxy`, in small letters
/// or in capitals.
pub(super) fn of(scheme: &str) -> Option<Proxy> {
    by(scheme, |name| std::env::var(name).ok())
}

fn by(scheme: &str, variable: impl Fn(&str) -> Option<String>) -> Option<Proxy> {
    let value = |name: &str| {
        let spellings = [name.to_owned(), name.to_ascii_uppercase()];
        spellings.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
    };
    let address = value(&format!("{scheme}_proxy")).or_else(|| value("all_proxy"))?;
    let proxy = Proxy::new(address.trim()).ok()?;
    let mut built =
        Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port()).resolve_target(proxy.resolve_target());
    if let Some(user) = proxy.username() {
        built = built.username(user);
    }
    if let Some(password) = proxy.password() {
        built = built.password(password);
    }
    for host in value("no_proxy").unwrap_or_default().split(',').map(str::trim).filter(|host| !host.is_empty()) {
        let host = host.strip_prefix("*.").or_else(|| host.strip_prefix('.')).unwrap_or(host);
        built = built.no_proxy(host);
        if host != "*" {
            // What stands for a host stands for those below it, as in curl, git and Python.
            built = built.no_proxy(&format!(".{host}"));
        }
    }
    built.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_has_its_proxy_and_some_hosts_have_none() {
        let set = |names: &'static [(&str, &str)]| {
            move |name: &str| names.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let both = set(&[("HTTPS_PROXY", "http://u:p%20w@proxy:3128"), ("NO_PROXY", "localhost, lab.example ,.x.org")]);
        let proxy = by("https", both).unwrap();
        assert_eq!(
            (proxy.host(), proxy.port(), proxy.username(), proxy.password()),
            ("proxy", 3128, Some("u"), Some("p w"))
        );
        for (host, is_direct) in [
            ("localhost", true),
            ("lab.example", true),
            ("data.lab.example", true),
            ("a.x.org", true),
            ("example", false),
        ] {
            assert_eq!(proxy.is_no_proxy(&format!("https://{host}/a").parse().unwrap()), is_direct, "{host}");
        }
        assert!(by("http", both).is_none(), "one for https:// is none for http://");
        assert_eq!(by("http", set(&[("all_proxy", "socks5://other")])).unwrap().host(), "other");
        assert!(by("https", set(&[("https_proxy", "")])).is_none());
        let none = by("https", set(&[("https_proxy", "proxy:1"), ("no_proxy", "*")])).unwrap();
        assert!(none.is_no_proxy(&"https://anywhere/".parse().unwrap()));
    }
}

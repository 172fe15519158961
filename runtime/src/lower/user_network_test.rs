use super::*;

fn lowered(annotations: &[(&str, &str)], network: &NetworkNamespace) -> Result<Option<UserNetwork>, String> {
    let annotations = annotations.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    lower(&annotations, network, false).map_err(|error| error.to_string())
}

#[test]
fn ports_are_published_as_they_are_written() {
    let new = NetworkNamespace::New;
    let asked = lowered(&[(NETWORK, "user"), (PUBLISH, "8080:80/tcp, 53:5353/udp,9000")], &new).unwrap();
    assert_eq!(asked, Some(UserNetwork { tcp: vec![(8080, 80), (9000, 9000)], udp: vec![(53, 5353)] }));
    assert_eq!(lowered(&[(NETWORK, "user")], &new).unwrap(), Some(UserNetwork::default()));
    assert_eq!(lowered(&[(NETWORK, "none")], &new).unwrap(), None);
    assert_eq!(lower(&Annotations::new(), &new, false).unwrap(), None);
}

#[test]
fn what_cannot_be_is_named() {
    let new = NetworkNamespace::New;
    for entry in ["0", "80:", "80:x", "65536", "80/sctp", "1:2:3", "-1", "127.0.0.1:80:80"] {
        let error = lowered(&[(NETWORK, "user"), (PUBLISH, entry)], &new).unwrap_err();
        assert!(error.contains(PUBLISH) && error.contains(entry), "{error}");
    }
    assert!(lowered(&[(PUBLISH, "80")], &new).unwrap_err().contains(NETWORK));
    assert!(lowered(&[(NETWORK, "slirp")], &new).unwrap_err().contains("slirp"));
    let path = NetworkNamespace::Path("/run/netns/pod".into());
    assert!(lowered(&[(NETWORK, "user")], &path).unwrap_err().contains("linux.namespaces"));
}

use super::*;

#[test]
fn nothing_is_published_unasked() {
    let arguments = arguments(&UserNetwork { tcp: vec![(8080, 80), (9000, 9000)], udp: vec![] }).join(" ");
    assert!(arguments.ends_with("-t 8080:80,9000:9000 -u none"), "{arguments}");
    assert!(arguments.contains("--no-map-gw -T none -U none"), "{arguments}");
}

#[test]
fn the_explanation_is_what_it_said_last() {
    assert_eq!(
        explanation("Failed to send 46 bytes to syslog\nNo IPv6\nCouldn't open it\n\n"),
        "Couldn't open it"
    );
    assert_eq!(explanation(""), "it has failed without saying why");
}

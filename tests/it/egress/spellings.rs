//! How a forbidden address can be written: what a URL parser, a C library or a network on the way would take for it.
//! `{p}` is the port at which a canary listens on every address of the machine.

/// A URL and the rule that must refuse it.
type Spelling = (&'static str, &'static str);

/// IPv4 loopback in every notation: what the system's own tools connect to 127/8 for.
const LOOPBACK: &[&str] = &[
    // As it is, short, and everywhere in its block.
    "http://127.0.0.1:{p}/",
    "http://127.1:{p}/",
    "http://127.0.1:{p}/",
    "http://127.0.0.2:{p}/",
    "http://127.1.2.3:{p}/",
    "http://127.255.255.254:{p}/",
    "http://127.65530:{p}/",
    "http://127.0.257:{p}/",
    "http://127.000.000.001:{p}/",
    // One number: decimal, octal, hexadecimal.
    "http://2130706433:{p}/",
    "http://017700000001:{p}/",
    "http://0017700000001:{p}/",
    "http://0x7f000001:{p}/",
    "http://0X7F000001:{p}/",
    "http://0x0000007f000001:{p}/",
    // Octal and hexadecimal parts, and mixtures.
    "http://0177.0.0.1:{p}/",
    "http://0177.0.0.01:{p}/",
    "http://00000177.0.0.1:{p}/",
    "http://0177.0000.0000.0001:{p}/",
    "http://0177.1:{p}/",
    "http://0177.0.1:{p}/",
    "http://0x7f.0.0.1:{p}/",
    "http://0X7F.0X0.0X0.0X1:{p}/",
    "http://0x7f.1:{p}/",
    "http://0x00007f.1:{p}/",
    "http://0x7f.0.1:{p}/",
    "http://0x7f.0.0.0x0001:{p}/",
    "http://127.0.0.0x1:{p}/",
    "http://127.0x1:{p}/",
    "http://127.0x0.00.1:{p}/",
    "http://0x7f.00.0x0.01:{p}/",
    "http://0177.0x0.1:{p}/",
    // The root's dot.
    "http://127.0.0.1.:{p}/",
    "http://127.1.:{p}/",
    "http://2130706433.:{p}/",
    "http://0x7f000001.:{p}/",
    // Other digits and other dots, which internationalized names bring to ASCII.
    "http://１２７.０.０.１:{p}/",
    "http://127。0。0。1:{p}/",
    "http://127．0．0．1:{p}/",
    "http://127｡0｡0｡1:{p}/",
    "http://①②⑦.⓪.⓪.①:{p}/",
    "http://¹²⁷.⁰.⁰.¹:{p}/",
    "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏:{p}/",
    "http://０ｘ７ｆ.1:{p}/",
    "http://２１３０７０６４３３:{p}/",
    "http://127.0.0.\u{ad}1:{p}/",
    "http://127\u{200b}.0.0.1:{p}/",
    // Percent-encoded.
    "http://%31%32%37.0.0.1:{p}/",
    "http://127%2e0%2E0%2e1:{p}/",
    "http://%31%32%37%2E%30%2E%30%2E%31:{p}/",
    "http://%30x7f.1:{p}/",
    "http://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1:{p}/",
    // What the URL standard forgives around it.
    "http:127.0.0.1:{p}/",
    "http:/127.0.0.1:{p}/",
    "http:////127.0.0.1:{p}/",
    "http:\\\\127.0.0.1:{p}\\",
    "HTTP://127.0.0.1:{p}",
    " http://127.0.0.1:{p}/ ",
    "http://127.0\n.0.1:{p}/",
    "http://12\t7.0.0.1:{p}/",
    "http://@127.0.0.1:{p}/",
    "http://127.0.0.1:0{p}/",
    "http://127.0.0.1:{p}#@example.com/",
    "http://127.0.0.1:{p}?@example.com/",
    "http://127.0.0.1:{p}\\@example.com/",
    "https://127.0.0.1:{p}/",
    // The names that are loopback by RFC 6761.
    "http://localhost:{p}/",
    "http://LOCALHOST:{p}/",
    "http://LocalHost.:{p}/",
    "http://ｌｏｃａｌｈｏｓｔ:{p}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{p}/",
    "http://loc%61lhost:{p}/",
    "http://local\thost:{p}/",
    "http://a.localhost:{p}/",
    "http://x.y.localhost.:{p}/",
];

/// IPv6 forms that end on this machine's loopback or unspecified address.
const LOOPBACK_V6: &[&str] = &[
    "http://[::1]:{p}/",
    "http://[::0001]:{p}/",
    "http://[0::1]:{p}/",
    "http://[0:0::0:1]:{p}/",
    "http://[0:0:0:0:0:0:0:1]:{p}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{p}/",
    "http://[::0.0.0.1]:{p}/",
    "http://[::ffff:127.0.0.1]:{p}/",
    "http://[::ffff:7f00:1]:{p}/",
    "http://[::FFFF:7F00:0001]:{p}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{p}/",
    "http://[0000:0000:0000:0000:0000:ffff:7f00:0001]:{p}/",
    "http://[::ffff:127.1.2.3]:{p}/",
];

/// Addresses to which Linux connects on loopback.
const UNSPECIFIED: &[&str] = &[
    "http://0.0.0.0:{p}/",
    "http://0:{p}/",
    "http://00:{p}/",
    "http://0x0:{p}/",
    "http://0x:{p}/",
    "http://0.:{p}/",
    "http://0.0:{p}/",
    "http://0x0.0x0:{p}/",
    "http://０.０.０.０:{p}/",
];

/// All that lies elsewhere, by the rule that names it.
const ELSEWHERE: &[Spelling] = &[
    ("http://0.0.0.1:{p}/", "unspecified"),
    ("http://[::]:{p}/", "unspecified"),
    ("http://[0:0:0:0:0:0:0:0]:{p}/", "unspecified"),
    ("http://[::0.0.0.0]:{p}/", "unspecified"),
    ("http://[::ffff:0.0.0.0]:{p}/", "unspecified"),
    // IPv4 in IPv6: compatible, translated, NAT64, 6to4, Teredo, ISATAP.
    ("http://[::127.0.0.1]:{p}/", "reserved"),
    ("http://[::7f00:1]:{p}/", "reserved"),
    ("http://[::ffff:0:127.0.0.1]:{p}/", "reserved"),
    ("http://[64:ff9b::127.0.0.1]:{p}/", "loopback"),
    ("http://[64:ff9b::7f00:1]:{p}/", "loopback"),
    ("http://[64:ff9b::192.168.1.1]:{p}/", "private"),
    ("http://[64:ff9b:1::127.0.0.1]:{p}/", "reserved"),
    ("http://[64:ff9b:1:7f00:0:100::]:{p}/", "reserved"),
    ("http://[2002:7f00:1::]:{p}/", "loopback"),
    ("http://[2002:7f00:1::1]:{p}/", "loopback"),
    ("http://[2002:c0a8:101::1]:{p}/", "private"),
    ("http://[2001:0:7f00:1::]:{p}/", "reserved"),
    ("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{p}/", "reserved"),
    ("http://[2606:4700::5efe:127.0.0.1]:{p}/", "loopback"),
    ("http://[2606:4700::200:5efe:10.0.0.1]:{p}/", "private"),
    ("http://[::ffff:10.0.0.1]:{p}/", "private"),
    ("http://[::ffff:c0a8:101]:{p}/", "private"),
    // Where clouds hand out credentials.
    ("http://169.254.169.254:{p}/", "metadata"),
    ("http://2852039166:{p}/", "metadata"),
    ("http://0xa9fea9fe:{p}/", "metadata"),
    ("http://025177524776:{p}/", "metadata"),
    ("http://0xA9.0xFE.0xA9.0xFE:{p}/", "metadata"),
    ("http://0251.0376.0251.0376:{p}/", "metadata"),
    ("http://0251.254.0xa9.254:{p}/", "metadata"),
    ("http://169.254.43518:{p}/", "metadata"),
    ("http://169.16689662:{p}/", "metadata"),
    ("http://0xa9.0376.43518:{p}/", "metadata"),
    ("http://169。254。169。254:{p}/", "metadata"),
    ("http://①⑥⑨.254.169.254:{p}/", "metadata"),
    ("http://169%2e254%2e169%2e254:{p}/", "metadata"),
    ("http://169.254.169.254.:{p}/", "metadata"),
    ("http://[::ffff:169.254.169.254]:{p}/", "metadata"),
    ("http://[::ffff:a9fe:a9fe]:{p}/", "metadata"),
    ("http://[64:ff9b::a9fe:a9fe]:{p}/", "metadata"),
    ("http://[2002:a9fe:a9fe::]:{p}/", "metadata"),
    ("http://[fd00:ec2::254]:{p}/", "metadata"),
    ("http://[fd00:0ec2:0:0:0:0:0:0254]:{p}/", "metadata"),
    ("http://[fd00:ec2::23]:{p}/", "metadata"),
    ("http://[fd20:ce::254]:{p}/", "metadata"),
    ("http://169.254.170.2:{p}/", "metadata"),
    ("http://169.254.170.23:{p}/", "metadata"),
    ("http://100.100.100.200:{p}/", "metadata"),
    ("http://1684301000:{p}/", "metadata"),
    ("http://168.63.129.16:{p}/", "metadata"),
    ("http://192.0.0.192:{p}/", "metadata"),
    ("http://metadata.google.internal:{p}/", "metadata"),
    ("http://METADATA.google.internal.:{p}/", "metadata"),
    ("http://metadata:{p}/", "metadata"),
    ("http://metadata.goog:{p}/", "metadata"),
    ("http://instance-data:{p}/", "metadata"),
    ("http://ｍｅｔａｄａｔａ.azure.internal:{p}/", "metadata"),
    // Networks of one's own.
    ("http://10.0.0.1:{p}/", "private"),
    ("http://10.1:{p}/", "private"),
    ("http://012.1:{p}/", "private"),
    ("http://0xa.1:{p}/", "private"),
    ("http://167772161:{p}/", "private"),
    ("http://172.16.0.1:{p}/", "private"),
    ("http://172.31.255.255:{p}/", "private"),
    ("http://0xac100001:{p}/", "private"),
    ("http://192.168.1.1:{p}/", "private"),
    ("http://192.168.257:{p}/", "private"),
    ("http://0300.0250.1.1:{p}/", "private"),
    ("http://3232235777:{p}/", "private"),
    ("http://[fec0::1]:{p}/", "private"),
    ("http://[fc00::1]:{p}/", "unique_local"),
    ("http://[fd12:3456:789a::1]:{p}/", "unique_local"),
    ("http://169.254.1.1:{p}/", "link_local"),
    ("http://[fe80::1]:{p}/", "link_local"),
    ("http://[febf::1]:{p}/", "link_local"),
    ("http://100.64.0.1:{p}/", "carrier_grade_nat"),
    ("http://0x64400001:{p}/", "carrier_grade_nat"),
    // Nobody's, or everybody's.
    ("http://224.0.0.1:{p}/", "multicast"),
    ("http://239.255.255.250:{p}/", "multicast"),
    ("http://[ff02::1]:{p}/", "multicast"),
    ("http://[ff0e::1]:{p}/", "multicast"),
    ("http://255.255.255.255:{p}/", "broadcast"),
    ("http://4294967295:{p}/", "broadcast"),
    ("http://0xffffffff:{p}/", "broadcast"),
    ("http://037777777777:{p}/", "broadcast"),
    ("http://240.0.0.1:{p}/", "reserved"),
    ("http://192.0.0.1:{p}/", "reserved"),
    ("http://192.88.99.1:{p}/", "reserved"),
    ("http://192.175.48.1:{p}/", "reserved"),
    ("http://[100::1]:{p}/", "reserved"),
    ("http://[2001:10::1]:{p}/", "reserved"),
    ("http://[2620:4f:8000::1]:{p}/", "reserved"),
    ("http://[4000::1]:{p}/", "reserved"),
    ("http://[5f00::1]:{p}/", "reserved"),
    ("http://192.0.2.1:{p}/", "documentation"),
    ("http://198.51.100.1:{p}/", "documentation"),
    ("http://203.0.113.1:{p}/", "documentation"),
    ("http://[2001:db8::1]:{p}/", "documentation"),
    ("http://[3fff::1]:{p}/", "documentation"),
    ("http://198.18.0.1:{p}/", "benchmark"),
    ("http://[2001:2::1]:{p}/", "benchmark"),
    // What is refused for what stands around the host.
    ("http://user@127.0.0.1:{p}/", "userinfo"),
    ("http://example.com:80@127.0.0.1:{p}/", "userinfo"),
    ("http://example.com%40@127.0.0.1:{p}/", "userinfo"),
    ("http://127.0.0.1:0/", "port"),
    ("ftp://127.0.0.1:{p}/", "scheme"),
    ("ws://127.0.0.1:{p}/", "scheme"),
];

/// What is no URL that can be called, and so no way to anywhere.
const UNREADABLE: &[&str] = &[
    "http://[fe80::1%25eth0]:{p}/",
    "http://[fe80::1%eth0]:{p}/",
    "http://[::1%lo]:{p}/",
    "http://[::1:{p}/",
    "http://[127.0.0.1]:{p}/",
    "http://[::ffff:127.1]:{p}/",
    "http://[::ffff:0177.0.0.1]:{p}/",
    "http://256.0.0.1:{p}/",
    "http://127.0.0.08:{p}/",
    "http://127.0.0.1.5:{p}/",
    "http://127.16777216:{p}/",
    "http://4294967296:{p}/",
    "http://0x7g.1:{p}/",
    "http://127.0.0.1%00:{p}/",
    "http://127.0.0.1%2f:{p}/",
    "http://127.0.0.1 :{p}/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:{p}:80/",
    "http://127.0.0.1:-{p}/",
    "http://:{p}/",
    "//127.0.0.1:{p}/",
    "127.0.0.1:{p}",
];

fn at(url: &str, port: u16) -> String {
    url.replace("{p}", &port.to_string())
}

/// Those that reach a listener on this machine when nothing refuses them.
pub(super) fn reachable(port: u16, ipv6: bool) -> Vec<(String, &'static str)> {
    let v6: &[&str] = if ipv6 { LOOPBACK_V6 } else { &[] };
    let loopback = LOOPBACK.iter().chain(v6).map(|url| (at(url, port), "loopback"));
    loopback.chain(UNSPECIFIED.iter().map(|url| (at(url, port), "unspecified"))).collect()
}

/// Every URL, and the rule that must refuse it.
pub(super) fn forbidden(port: u16) -> Vec<(String, &'static str)> {
    let elsewhere = ELSEWHERE.iter().map(|(url, rule)| (at(url, port), *rule));
    reachable(port, true).into_iter().chain(elsewhere).collect()
}

/// Every text that is refused as no URL.
pub(super) fn unreadable(port: u16) -> Vec<String> {
    UNREADABLE.iter().map(|url| at(url, port)).collect()
}

# ruff: noqa: RUF001, SIM905 - tables of words, some with look-alike characters on purpose
"""What `http_get` must refuse, as data: addresses, spellings of them, URLs that are read two ways.

And what it must not refuse: addresses of the public internet.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_PUBLIC = """
    0.0.0.0 0.1.2.3 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200
    100.127.255.255 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.254 169.254.0.1 169.254.0.23
    169.254.42.42 169.254.169.123 169.254.169.249 169.254.169.253 169.254.169.254 169.254.170.2
    169.254.170.23 172.16.0.1 172.17.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.10
    192.0.0.170 192.0.0.171 192.0.0.192 192.0.2.1 192.88.99.1 192.88.99.2 192.168.0.1 192.168.1.1
    192.168.99.100 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
    224.0.0.251 239.255.255.250 240.0.0.1 255.255.255.254 255.255.255.255 168.63.129.16 :: ::1 ::2
    100::1 100:0:0:1::1 fc00::1 fd00:ec2::254 fd00:ec2::253 fd00:ec2::23 fd20:ce::254 fd00:42::42
    fdff:ffff::1 fe80::1 fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff01::1 ff02::1 ff02::fb ff05::2
    ff0e::1 5f00::1 4000::1 8000::1 2001::1 2001:1::1 2001:1::2 2001:1::3 2001:2::1 2001:3::1
    2001:4:112::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff::1 2001:db8::1 3fff::1 3fff:fff::1
""".split()
"""Loopback, private, link-local, shared, multicast, reserved, documentation, protocol assignments:
the IANA registries of special-purpose addresses; and where clouds keep their metadata."""

V4_IN_V6 = """
    ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:192.168.0.1
    ::ffff:8.8.8.8 ::127.0.0.1 ::7f00:1 ::169.254.169.254 ::8.8.8.8 ::ffff:0:127.0.0.1
    ::ffff:0:a9fe:a9fe ::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::10.0.0.1
    64:ff9b::8.8.8.8 64:ff9b:1::7f00:1 64:ff9b:1::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00::
    64:ff9b:1:ffff::1 2002:7f00:1:: 2002:a9fe:a9fe:: 2002:a00:1::1 2002:c0a8:101::1
    2002:808:808::1 2001:0:a9fe:a9fe::1 2001:0:4136:e378:8000:63bf:3fff:fdd2
    2001:0:808:808:0:0:80ff:fffe 2606:4700::5efe:7f00:1 2606:4700::200:5efe:a9fe:a9fe
    2a00:1450::5efe:808:808 2a00:1450:0:1:200:5efe:10.0.0.1
""".split()
"""IPv4 inside IPv6: mapped, compatible, SIIT, NAT64, 6to4, Teredo, ISATAP."""

TRANSLATED_METADATA = """
    2606:4700:a9fe:a9fe:: 2a00:1450:ffa9:fea9:fe:: 2a00:1450:1:a9fe:a9:fe00::
    2a00:1450:1:ffa9:fe:a9fe:: 2a00:1450:1:1:a9:fea9:fe00:: 2a00:1450:1:1::a9fe:a9fe
    2a01:a9fe:aa02::1 2a00:1450:1:1::a9fe:aa17 2a00:1450:1:1::a83f:8110 2a00:1450:1:1::6464:64c8
    2a00:1450:1:1::c000:c0 2a00:1450:1:1::a9fe:2a2a 2a00:1450:1:1::a9fe:17
""".split()
"""A cloud's metadata at every place where a translator with a public prefix may read it."""

SPELLED = {
    "127.0.0.1": """
        127.1 127.0.1 2130706433 0x7f000001 0X7F000001 0x7f.1 0x7f.0.1 0x7f.0.0.1 0x7f.0x0.0x0.0x1
        0177.1 0177.0.0.1 0177.0.0.01 00000177.0.0.1 017700000001 127.0.0.01 127.00.0.1
        127.000.000.001 127.0.0.1. 127.0.0.1.. 127.0x0.0.1 127.0.0.0x1 localhost LOCALHOST
        localhost. LocalHost.localdomain. 127。0。0。1 127．0．0．1 127｡0｡0｡1 １２７.0.0.1 ①②⑦.⓪.⓪.①
        ⓛⓞⓒⓐⓛⓗⓞⓢⓣ ⅼocalhost localhoſt lоcalhost 𝟏𝟐𝟕.𝟎.𝟎.𝟏 ٧.1 %31%32%37.0.0.1 127.0.0.1%2e
        127.0.0.1%00 127.0.0.1%00.example.com 127.0.0.1%20 127.0.0.1%09 %6c%6f%63alhost
        127.0.0.1%2f 127.0.0.1%23@example.com 127.0.0.1%2523 6425673729 4424997889
    """,
    "::1": """
        [::1%lo] [::1%25lo] [::1%1] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001]
        [::0001] [0::1] [::0:1] [::1]] [[::1]] ::1 [::1 ::1] [v1.::1]
    """,
    "0.0.0.0": "0 00 0x0 0.0 0x0.0 0.0.0 000.000.000.000 4294967296 [::0]",
    "169.254.169.254": """
        2852039166 0xa9fea9fe 0xA9.0xFE.0xA9.0xFE 0251.0376.0251.0376 0251.254.169.254
        169.254.43518 169.16689662 169.0xfea9fe 425.510.425.510 0xa9.254.0251.254
        169.254.169.254. 169。254。169。254 ⑯⑨。②⑤④。⑯⑨｡②⑤④ 169.254.169.254%00.example.com
        0000000000000251.0000000000000376.0000000000000251.0000000000000376 7147006462
        ⑯⑨.②⑤④.⑯⑨.②⑤④ [::ffff:169.254.43518] [fe80::a9fe:a9fe%25eth0] [::ffff:a9fe:a9fe%1]
    """,
    "10.0.0.1": "167772161 0xa000001 012.0.0.1 10.1 0xa.1 10.0.1 [::ffff:10.0.1]",
    "192.168.0.1": "3232235521 0xc0a80001 0300.0250.0.1 192.168.1 192.11010049 192.168.0.1.",
    "fe80::1": "[fe80::1%eth0] [fe80::1%25eth0] [fe80::1%1] [FE80:0::1%2]",
}
"""Hosts that some resolver or some library takes for the address before them."""

TEMPLATES = """
    file://{host}/etc/passwd file:///etc/passwd gopher://{host}:6379/_INFO ftp://{host}/ ftps://{host}/
    dict://{host}:11211/stats ldap://{host}/ ldaps://{host}/ tftp://{host}/x sftp://{host}/
    ssh://{host}/ telnet://{host}:23/ ws://{host}/ wss://{host}/ smb://{host}/share nfs://{host}/x
    data:text/html,hello data:;base64,aGk= javascript:alert(1) blob:http://{host}/1 about:blank
    view-source:http://{host}/ jar:http://{host}!/x netdoc:///etc/passwd php://filter/resource=x
    expect://id phar://x unix:///var/run/docker.sock http+unix://%2Fvar%2Frun%2Fdocker.sock/info
    https+unix://%2Frun%2Fx.sock/ mailto:a@{host} urn:isbn:0 httpx://{host}/ hhttp://{host}/
    http-://{host}/ //{host}/ ://{host}/ {host}/ {host}:80 http:{host} http:/{host}/ http:///{host}/
    http:////{host}/ https:///{host}/
    http://{host}:0/ http://{host}:1/ http://{host}:21/ http://{host}:22/ http://{host}:23/
    http://{host}:25/ http://{host}:53/ http://{host}:81/ http://{host}:110/ http://{host}:139/
    http://{host}:445/ https://{host}:2375/ http://{host}:2379/ http://{host}:3306/
    http://{host}:5432/ http://{host}:6379/ http://{host}:8000/ http://{host}:8080/
    https://{host}:8443/ http://{host}:9200/ http://{host}:10250/ http://{host}:11211/
    http://{host}:27017/ http://{host}:65535/ http://{host}:65536/ http://{host}:99999/
    http://{host}:/ http://{host}:a/ http://{host}:-80/ http://{host}:+80/ http://{host}:80:80/
    http://{host}:80a/ http://{host}:８０/ http://{host}:0x50/ http://{host}:%38%30/
    http://user@{host}/ http://user:word@{host}/ http://:word@{host}/ http://@{host}/ http://@@{host}/
    http://example.com@{host}/ http://example.com:80@{host}/ http://{host}@example.com/
    http://example.com@{host}@example.org/ http://a@{host}:80@example.com/ https://1.1.1.1@{host}/
    http://example.com%40@{host}/ http://example.com%2f@{host}/ http://example.com%23@{host}/
    http://1.1.1.1%20&@{host}# http://1.1.1.1#@{host}:81/ http://1.1.1.1:80#@{host}:81@x:82/
    http://example.com;@{host}/ http://example.com&@{host}/ http://example.com,{host}/
    http://{host}／.example.com/ http://{host}？.example.com/ http://{host}＃@example.com/
    http://{host}:80＠example.com/ http://example.com／@{host}/ http://[{host}]/
    http://[{host}/ http://{host}]/ http://[::ffff:{host}%25x]/ http://<{host}>/ http://"{host}"/
    http://{host}|example.com/ http://{host}^/ http://{host}`/ http://({host})/ http://*.{host}/
    http://.{host}/ http://-{host}/ http://{host}-/ http://{host}%/ http://{host}%zz/
""".split()
"""Schemes, ports, user names and whatever parsers are known to split in two ways."""

WITH_ODD_CHARACTERS = [
    "http://{host}\\@example.com:81/",
    "http://example.com\\@{host}/",
    "http://example.com\\\\@{host}/",
    "http://example.com\\.{host}/",
    "http:\\\\{host}\\",
    "http:/\\{host}/",
    "\\\\{host}\\share",
    "/\\{host}/",
    "http://{host}\\x/",
    "http://{host}/a\\b",
    "http://{host}\0/",
    "http://{host}\0.example.com/",
    "http://example.com\0@{host}/",
    "http://{host}\t/",
    "http://{host} /",
    "http:// {host}/",
    " http://{host}/",
    "http://{host}/ ",
    "http://{host} @example.com/",
    "http://{host}\x0b/",
    "http://{host}\x7f/",
    "http://{host}\x85/",
    "http://{host}\xa0/",
    "http://{host}\xad/",
    "http://{host}\u200b/",
    "http://\u200b{host}/",
    "http://{host}\u2028/",
    "http://{host}\u202e/",
    "http://{host}\u3000/",
    "http://{host}\ufeff/",
    "\ufeffhttp://{host}/",
    "ht\ttp://{host}/",
    "http://{host}/a b",
]
WITH_LINE_BREAKS = [
    "http://{host}\r\n/",
    "http://{host}\n.example.com/",
    "ht\ntp://{host}/",
    "http://example.com/\r\nHost: {host}",
    "http://example.com/ HTTP/1.1\r\nX: y",
    "http://{host}/\r\n\r\nGET /admin HTTP/1.1",
]
"""These cannot stand in a header: a redirect to them is a redirect to what stands before."""

PUBLIC = """
    1.0.0.1 1.1.1.1 4.4.4.4 8.8.4.4 8.8.8.8 9.9.9.9 11.0.0.1 13.107.21.200 17.253.144.10
    20.112.52.29 23.185.0.2 31.13.72.36 34.107.221.82 35.190.247.13 40.89.244.232 45.60.0.1
    50.19.0.1 52.84.0.1 54.239.28.85 63.35.0.1 64.233.160.5 66.102.0.1 69.147.92.11 72.163.4.185
    74.6.231.20 77.88.55.88 80.67.169.12 81.2.69.142 84.200.69.80 87.238.33.1 91.198.174.192
    93.184.216.34 94.140.14.14 95.101.0.1 96.7.128.175 98.137.11.163 99.84.0.1 100.0.0.1
    100.63.0.1 100.128.0.1 101.101.101.101 103.102.166.224 104.16.132.229 106.10.248.150
    108.138.0.1 110.242.68.66 111.63.0.1 114.114.114.114 119.29.29.29 123.125.114.144
    125.209.222.141 126.255.255.255 128.0.0.1 129.132.19.216 130.89.148.77 131.107.255.255
    133.11.0.1 137.138.0.1 139.130.4.5 140.82.121.4 141.101.120.10 142.250.185.78 143.204.0.1
    144.76.0.1 145.97.20.20 146.75.0.1 147.75.0.1 149.112.112.112 150.171.28.10 151.101.1.140
    152.199.0.1 154.53.224.1 156.154.70.1 157.240.0.35 159.69.0.1 161.97.0.1 162.159.0.1
    163.172.0.1 164.92.0.1 165.22.0.1 167.172.0.1 168.63.129.17 169.253.255.255 170.114.0.1
    172.15.0.1 172.32.0.1 172.217.16.142 173.194.0.1 176.103.130.130 178.128.0.1 180.76.76.76
    185.15.59.224 185.199.108.153 188.114.96.1 190.93.240.1 192.0.1.1 192.31.196.1 192.52.193.1
    192.175.48.1 193.0.6.139 194.150.168.168 195.46.39.39 198.41.0.4 199.7.83.42 203.0.112.1
    208.67.222.222 216.58.214.14 223.255.255.254 2001:200::1 2001:500:88:200::8
    2001:4860:4860::8888 2003::1 2400:cb00:2048:1::c629:d7a2 2404:6800:4003::200e
    2600:1901:0:38d7:: 2606:2800:220:1:248:1893:25c8:1946 2606:4700:4700::1111
    2607:f8b0:4004::200e 2620:0:2d0:200::7 2620:4f:8000::1 2620:fe::fe 2800:3f0:4001::200e
    2a00:1450:4001:82a::200e 2a01:4f8::1 2a02:2e0:3fe:1001:7777:772e:2:85 2a04:4e42::223 2a09::1
    2c0f:fb50::1
""".split()
"""Addresses of well-known sites, and the neighbours of special ranges."""


NAMES_OF_PAGES = {"127.0.0.1/", "127.0.0.1:80", "://127.0.0.1/"}
"""No URLs; but in a redirect they are pages of the site that redirects."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One URL, where it leads if it is let through, and the same with a name for its host."""

    url: str
    reaches: str
    by_name: str


def url_of(address: str) -> str:
    """The plain URL of an address."""
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


ATTACKS = [
    *(
        Attack(url_of(address), address, "http://inside.example/")
        for address in (*NOT_PUBLIC, *V4_IN_V6, *TRANSLATED_METADATA)
    ),
    *(
        Attack(f"http://{host}/", address, f"http://{number}.inside.example/")
        for address, hosts in SPELLED.items()
        for number, host in enumerate(hosts.split())
    ),
    *(
        Attack(
            template.replace("{host}", "127.0.0.1"),
            "127.0.0.1",
            template.replace("{host}", "x.example"),
        )
        for template in (*TEMPLATES, *WITH_ODD_CHARACTERS, *WITH_LINE_BREAKS)
    ),
]

"""Rates of links as people write them."""
import re

_SCALES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}

# A full Ethernet frame of 1,514 bytes carries 1,448 bytes of a TCP stream: MTU 1,500 less 20 bytes of IP, 20 of TCP and 12 of its
# time stamps, plus 14 of Ethernet. tc counts these 1,514. No TCP stream can have more of a link than this share.
TCP_SHARE = 1448 / 1514


def parse_rate(text):
    """Bits per second of '10Gbit', '500Mbit', '1.5gbit'."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    if not match or match[2] not in _SCALES:
        raise ValueError(f"'{text}' is no rate; write it as 10Gbit or 500Mbit")
    rate = round(float(match[1]) * _SCALES[match[2]])
    if rate < 10**6:
        raise ValueError(f"a link of '{text}' is too slow to measure anything; 1Mbit is the least")
    return rate


def format_rate(bits_per_second):
    """The shortest exact spelling of a rate: '500Mbit', '1500Mbit', '10Gbit'."""
    for name, scale in (("Gbit", 10**9), ("Mbit", 10**6), ("kbit", 10**3)):
        if bits_per_second % scale == 0:
            return f"{bits_per_second // scale}{name}"
    return f"{bits_per_second}bit"

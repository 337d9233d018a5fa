"""Reads and writes Caffe's binary files without Caffe's or Poseidon's code: the wire format of protobuf, and the few fields that tests
look at.

Field numbers: BVLC Caffe 1.0, src/caffe/proto/caffe.proto. Encoding: https://protobuf.dev/programming-guides/encoding/
"""
import dataclasses

import numpy

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Yields (number, wire type, value) of a message; bytes for whatever has a length."""
    data = memoryview(data)
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == VARINT:
            value, at = varint(data, at)
        elif kind == BYTES:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            size = {FIXED64: 8, FIXED32: 4}[kind]
            value, at = data[at:at + size], at + size
        yield key >> 3, kind, value


def integers(kind, value):
    """A repeated integer field's values, packed or not."""
    if kind == VARINT:
        return [value]
    values, at = [], 0
    while at < len(value):
        one, at = varint(value, at)
        values.append(one)
    return values


@dataclasses.dataclass
class Datum:
    channels: int = 0
    height: int = 0
    width: int = 0
    label: int = 0
    pixels: bytes = b""


def datum(data):
    names = {1: "channels", 2: "height", 3: "width", 4: "pixels", 5: "label"}
    result = Datum()
    for number, kind, value in fields(data):
        if number in names:
            setattr(result, names[number], bytes(value) if kind == BYTES else value)
    return result


def blob(data):
    """BlobProto as an array of float32 or float64, whichever it holds."""
    shape, parts, kind_of = [], [], numpy.dtype("<f4")
    for number, kind, value in fields(data):
        if number == 7:
            for inner, inner_kind, inner_value in fields(value):
                if inner == 1:
                    shape += integers(inner_kind, inner_value)
        elif number == 5:
            parts.append(bytes(value))
        elif number == 8:
            kind_of = numpy.dtype("<f8")
            parts.append(bytes(value))
    return numpy.frombuffer(b"".join(parts), kind_of).reshape(shape)


def weights(path):
    """{layer: [array, ...]} of a .caffemodel."""
    result = {}
    for number, _, value in fields(path.read_bytes()):
        if number != 100:
            continue
        name, blobs = None, []
        for inner, _, inner_value in fields(value):
            if inner == 1:
                name = bytes(inner_value).decode()
            elif inner == 7:
                blobs.append(blob(inner_value))
        if blobs:
            result[name] = blobs
    return result


def encoded_varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def encoded(number, value):
    """One field: an integer as a varint, text and bytes with their length."""
    if isinstance(value, int):
        return encoded_varint(number << 3 | VARINT) + encoded_varint(value)
    content = value.encode() if isinstance(value, str) else value
    return encoded_varint(number << 3 | BYTES) + encoded_varint(len(content)) + content


def encoded_datum(shape, pixels, label):
    return b"".join(encoded(number, value) for number, value in zip((1, 2, 3, 4, 5), (*shape, pixels, label)))

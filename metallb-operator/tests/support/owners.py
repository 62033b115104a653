"""Asks who has an address, 500 times a second, and prints whenever other hosts answer than before: monotonic nanoseconds, MACs.

owners.py INTERFACE ADDRESS OWN_ADDRESS
"""
import ipaddress
import select
import socket
import struct
import sys
import time

interface, vip, own = sys.argv[1], *map(ipaddress.ip_address, sys.argv[2:4])
packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806 if vip.version == 4 else 0x86DD))
packet.bind((interface, 0))
mac = packet.getsockname()[4]


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def question():
    if vip.version == 4:
        return b"\xff" * 6 + mac + b"\x08\x06" + bytes.fromhex("0001080006040001") + mac + own.packed + bytes(6) + vip.packed
    group = bytes.fromhex("ff0200000000000000000001ff") + vip.packed[13:]
    body = bytes([135, 0, 0, 0, 0, 0, 0, 0]) + vip.packed + b"\x01\x01" + mac
    total = checksum(own.packed + group + struct.pack("!I", len(body)) + b"\0\0\0\x3a" + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + own.packed + group
    return b"\x33\x33\xff" + vip.packed[13:] + mac + b"\x86\xdd" + header + body


def answerer(frame):
    """The host that answers us; what is told to all is no answer."""
    if frame[:6] != mac:
        return None
    if vip.version == 4:
        answers = frame[20:22] == b"\0\2" and frame[28:32] == vip.packed
        return frame[22:28] if answers else None
    answers = len(frame) >= 78 and frame[54] == 136 and frame[62:78] == vip.packed
    return frame[6:12] if answers else None


before, question = None, question()
due = time.monotonic_ns()
while True:
    due += 2_000_000
    now = time.monotonic_ns()
    packet.send(question)
    owners = set()
    while (left := due - time.monotonic_ns()) > 0:
        if select.select([packet], [], [], left / 1e9)[0]:
            owner = answerer(packet.recv(2048))
            if owner:
                owners.add(owner.hex(":"))
    due = max(due, time.monotonic_ns())
    if owners != before:
        print(now, *sorted(owners), flush=True)
        before = owners

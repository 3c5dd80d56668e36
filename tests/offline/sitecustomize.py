"""Run by every Python with this folder on PYTHONPATH: refuses connections to other machines.

Each attempt is noted in the file that LEPTON_ATTEMPTS names, as a program may swallow the error.
"""

import ipaddress
import os
import socket
import sys

sys.modules["rfc3987_syntax"] = None  # as lepton_lib.cli.main does

_getaddrinfo = socket.getaddrinfo


def _check(address):
    if not isinstance(address, tuple):
        return  # a Unix socket
    host = address[0]
    if host not in ("localhost", "") and not ipaddress.ip_address(host).is_loopback:
        _refuse(ConnectionRefusedError, f"a connection to {host}")


def _refuse(error, attempt):
    if os.environ.get("LEPTON_ATTEMPTS"):
        with open(os.environ["LEPTON_ATTEMPTS"], "a") as file:
            file.write(f"{attempt}\n")
    raise error(f"the tests run without a network; got {attempt}")


def _guarded(name, place):
    """Guard a method of sockets; ``place`` finds the address among its arguments, or None."""
    method = getattr(socket.socket, name)

    def guarded(self, *args):
        if place(args) is not None:
            _check(place(args))
        return method(self, *args)

    setattr(socket.socket, name, guarded)


def _guarded_getaddrinfo(host, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "localhost", "") and not name.replace(".", "").replace(":", "").isalnum():
        _refuse(socket.gaierror, f"a look-up of {name}")
    if name not in (None, "localhost", ""):
        _check((name,))
    return _getaddrinfo(host, *args, **kwargs)


def _guarded_gethostbyname(host):
    return _guarded_getaddrinfo(host, None, socket.AF_INET)[0][4][0]


_guarded("connect", lambda args: args[0])
_guarded("connect_ex", lambda args: args[0])
_guarded("sendto", lambda args: args[-1])
_guarded("sendmsg", lambda args: args[3] if len(args) > 3 else None)
socket.gethostbyname = _guarded_gethostbyname
socket.getaddrinfo = _guarded_getaddrinfo

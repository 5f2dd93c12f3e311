"""Whether pages may offer paths on the server's machine: only where nobody but this machine can reach the dashboard.

Whoever reaches the port could otherwise read any file of the server's user, for example as a table.
"""

import ipaddress

import streamlit as st


def paths_offered() -> bool:
    """Whether this page may offer paths; writes the reason where it may not."""
    reason = refusal(st.get_option("server.address"), st.get_option("browser.serverAddress"), st.context.headers.get("Host"))
    if reason is not None:
        st.caption(
            f"Upload the file: paths on the server's machine are offered only at a loopback address, and {reason}. "
            "Start the dashboard at 127.0.0.1 to use them."
        )
    return reason is None


def refusal(server_address: str | None, browser_address: str | None, host: str | None) -> str | None:
    """Why paths are not offered; None if the dashboard can only be reached from this machine.

    Args:
        server_address: Streamlit's `server.address`, where it listens; None listens on every network.
        browser_address: Streamlit's `browser.serverAddress`, the address it prints; None for the same.
        host: the request's Host header, which differs behind a proxy; None without a request.

    >>> refusal("127.0.0.1", None, "localhost:8501")
    >>> refusal("0.0.0.0", None, None)
    'the server listens at 0.0.0.0'
    """
    if not _is_loopback(server_address or ""):
        return f"the server listens at {server_address or 'every address of this machine'}"
    if browser_address and not _is_loopback(browser_address):
        return f"its public address is {browser_address}"
    if host and not _is_loopback(_without_port(host)):
        return f"this page was opened at {host}"
    return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:  # a name, or the path of a Unix socket
        return False

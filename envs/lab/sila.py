"""The pipetting bench over SiLA 2: our bench as a server, and any such server as an agent's bench.

    python -m envs.lab.sila --port 50052              # with TLS, unless --insecure
    envs:Liquid-v0 with instrument="127.0.0.1:50052"  # an agent's bench; without TLS only

A real robot takes the bench's place by serving this feature. Its faults are the feature's defined
execution error, LiquidFault.
"""

from __future__ import annotations

import argparse
import threading
from typing import Any

import numpy as np

from envs.lab.deck import STOCKS, WELLS, Hidden, LiquidFault, PyLabRobotBench
from experience.errors import EnvironmentFailure, MissingPartError


def _element(kind: str, name: str, description: str, body: str) -> str:
    return (
        f"<{kind}><Identifier>{name}</Identifier><DisplayName>{name}</DisplayName>"
        f"<Description>{description}</Description>{body}</{kind}>"
    )


def _value(kind: str, name: str, basic: str, description: str) -> str:
    return _element(kind, name, description, f"<DataType><Basic>{basic}</Basic></DataType>")


def _command(name: str, description: str, *values: str) -> str:
    # The order of the elements is fixed by SiLA's schema: a server refuses another one.
    body = "<Observable>No</Observable>" + "".join(values)
    errors = "<DefinedExecutionErrors><Identifier>LiquidFault</Identifier></DefinedExecutionErrors>"
    return _element("Command", name, description, body + errors)


_WELL = _value("Parameter", "Well", "Integer", f"From 1 to {WELLS}.")
FEATURE = (
    '<?xml version="1.0" encoding="utf-8"?>'
    '<Feature xmlns="http://www.sila-standard.org" SiLA2Version="1.0"\n'
    'FeatureVersion="1.0" MaturityLevel="Draft" Originator="org.xp" Category="lab">'
    "<Identifier>LiquidBench</Identifier>\n"
    "<DisplayName>Liquid Bench</DisplayName>"
    "<Description>Pipettes stocks into wells and reads their absorbance.</Description>\n"
    + _command(
        "Begin",
        "Puts a fresh deck down.",
        _value("Parameter", "Seed", "Integer", "Of a simulated bench."),
    )
    + _command("NewTip", "Throws the tip away and takes the next.")
    + _command(
        "Transfer",
        "Aspirates from a stock and dispenses into a well.",
        _value("Parameter", "Source", "String", f"One of {', '.join(STOCKS)}."),
        _WELL,
        _value("Parameter", "Volume", "Real", "In microlitres."),
    )
    + _command(
        "Absorbance",
        "Reads a well at 520 nm.",
        _WELL,
        _value("Response", "Reading", "Real", "Absorbance."),
    )
    + _element("DefinedExecutionError", "LiquidFault", "The bench refused and moved nothing.", "")
    + "</Feature>"
)


def _library() -> Any:
    try:
        import sila2.client
        import sila2.framework
        import sila2.server
    except ImportError as missing:
        raise MissingPartError(f"SiLA 2 needs sila2: {missing}", "./xp setup worlds") from missing
    return sila2


def server() -> Any:
    """A SilaServer, not yet started, with one simulated bench behind it."""
    sila2 = _library()
    feature = sila2.framework.Feature(FEATURE)
    # The server answers each call in a thread of a pool; the bench has one state.
    guard = threading.Lock()

    class Served(sila2.server.FeatureImplementationBase):  # type: ignore
        bench: PyLabRobotBench | None = None

        def Begin(self, Seed: int, *, metadata: Any) -> None:
            with guard:
                self.bench = PyLabRobotBench(Hidden.drawn(np.random.default_rng(Seed)), Seed)

        def NewTip(self, *, metadata: Any) -> None:
            self._tried("new_tip")

        def Transfer(self, Source: str, Well: int, Volume: float, *, metadata: Any) -> None:
            if Source not in STOCKS or not 1 <= Well <= WELLS or not Volume > 0:
                raise ValueError(
                    f"stocks {', '.join(STOCKS)}; wells 1 to {WELLS}; a volume above 0"
                )
            self._tried("transfer", Source, Well, Volume)

        def Absorbance(self, Well: int, *, metadata: Any) -> float:
            if not 1 <= Well <= WELLS:
                raise ValueError(f"wells are 1 to {WELLS}")
            return float(self._tried("absorbance", Well))

        def _tried(self, name: str, *arguments: Any) -> Any:
            with guard:
                if self.bench is None:
                    raise ValueError("call Begin first")
                try:
                    return getattr(self.bench, name)(*arguments)
                except LiquidFault as fault:
                    raise _fault(feature, str(fault)) from fault

    made = sila2.server.SilaServer(
        "xp bench",
        "LiquidBench",
        "A pipetting bench on PyLabRobot",
        "1.0",
        "https://sila-standard.com",
    )
    made.set_feature_implementation(feature, Served(made))
    return made


def _fault(feature: Any, message: str) -> Exception:
    from sila2.framework import DefinedExecutionError

    kind = feature.defined_execution_errors["LiquidFault"]
    fault: Exception = DefinedExecutionError(kind, message)
    return fault


class SilaBench:
    """A bench behind a SiLA 2 server at host:port.

    The connection is not encrypted: for a device on this machine or in a closed network. A lost
    connection is a failure of the environment, never the agent's fault.
    """

    def __init__(self, address: str, seed: int) -> None:
        sila2 = _library()
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"instrument {address!r}; write host:port")
        try:
            self._feature = sila2.client.SilaClient(host, int(port), insecure=True).LiquidBench
        except Exception as error:  # gRPC's own, an unknown device, a missing feature
            raise EnvironmentFailure(
                f"no LiquidBench at {address}: {type(error).__name__}: {error}"[:300],
                "python -m envs.lab.sila --insecure",
            ) from error
        self._call("Begin", seed)

    def new_tip(self) -> None:
        self._call("NewTip")

    def transfer(self, source: str, well: int, volume: float) -> None:
        self._call("Transfer", source, well, float(volume))

    def absorbance(self, well: int) -> float:
        return float(self._call("Absorbance", well).Reading)

    def _call(self, name: str, *arguments: Any) -> Any:
        from sila2.framework import DefinedExecutionError, SilaError

        try:
            return getattr(self._feature, name)(*arguments)
        except DefinedExecutionError as fault:
            raise LiquidFault(fault.message) from fault
        except SilaError as error:
            raise EnvironmentFailure(f"the instrument failed at {name}: {error}"[:300]) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=50052)
    parser.add_argument("--insecure", action="store_true", help="without TLS")
    given = parser.parse_args()
    bench = server()
    start = bench.start_insecure if given.insecure else bench.start
    # Discovery would announce the bench to the whole network.
    start(given.host, given.port, enable_discovery=False)
    print(f"LiquidBench at {given.host}:{given.port}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        bench.stop()


if __name__ == "__main__":
    main()

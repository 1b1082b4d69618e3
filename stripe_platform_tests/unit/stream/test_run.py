import socket

import pytest

from stripe_platform.settings import Settings
from stripe_platform.stream.run import MetricsPortTaken, run_stream


def test_a_second_stream_on_the_same_port_says_so_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MetricsPortTaken, match=rf"127\.0\.0\.1:{port}: .* in use; .*METRICS_PORT"):
            run_stream(Settings(metrics_port=port))

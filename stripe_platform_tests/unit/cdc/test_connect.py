import socket
from datetime import timedelta

import pytest

from stripe_platform.cdc.connect import ConnectClient, ConnectUnavailable


def test_a_connect_that_does_not_answer_is_named_with_its_address_and_the_remedy() -> None:
    with socket.socket() as held_but_not_listening:
        held_but_not_listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held_but_not_listening.getsockname()[1]}"
        with pytest.raises(ConnectUnavailable, match="stripe-platform up") as caught:
            ConnectClient(url, patience=timedelta(milliseconds=300)).status("payments")
    assert url in str(caught.value)

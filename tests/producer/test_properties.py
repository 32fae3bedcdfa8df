"""Properties files of Kafka clients."""

import pytest

from producer.properties import read_properties


def test_keys_and_values_without_the_space_around_them(tmp_path):
    file = tmp_path / "client.properties"
    file.write_text("# TLS\n\n security.protocol = ssl\n  # sasl.password=old\nsasl.password=a=b#c\nclient.id=\n")
    assert read_properties(file) == {"security.protocol": "ssl", "sasl.password": "a=b#c", "client.id": ""}


def test_a_line_that_is_no_setting_is_named_by_its_number_alone(tmp_path):
    file = tmp_path / "client.properties"
    file.write_text("client.id=us\nsecret\n")
    with pytest.raises(ValueError, match=r"client\.properties, line 2: not key=value$") as raised:
        read_properties(file)
    assert "secret" not in str(raised.value)


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_properties(tmp_path / "missing.properties")

from __future__ import annotations

import pytest

from shared.errors import InputInvalid, NotFound, StorageUnavailable
from shared.settings import Settings
from shared.storage import METADATA_MAX_BYTES, Storage, connect_storage, output_key
from tests.integration.conftest import S3Location


@pytest.fixture
def storage(s3: S3Location) -> Storage:
    return connect_storage(s3.settings(Settings()))


def test_an_object_reads_back_with_what_it_was_stored_with(storage: Storage) -> None:
    storage.put("a/b.png", b"0123456789", content_type="image/png", metadata={"prompt": "50% красный", "seed": "42"})
    stored = storage.open("a/b.png")
    assert b"".join(stored.chunks()) == b"0123456789"
    assert (stored.content_type, stored.size_bytes, stored.content_range) == ("image/png", 10, None)
    assert storage.head("a/b.png").etag == stored.etag


def test_a_part_of_an_object(storage: Storage) -> None:
    storage.put("part", b"0123456789", content_type="image/png", metadata={})
    stored = storage.open("part", byte_range="bytes=2-4")
    assert b"".join(stored.chunks()) == b"234"
    assert stored.content_range == "bytes 2-4/10"
    with pytest.raises(InputInvalid):
        storage.open("part", byte_range="bytes=20-")


def test_what_is_not_there(storage: Storage) -> None:
    with pytest.raises(NotFound):
        storage.open("nowhere")
    with pytest.raises(NotFound):
        storage.head("nowhere")
    storage.delete("nowhere")


def test_metadata_of_any_length_and_alphabet_is_stored(storage: Storage) -> None:
    storage.put("long", b"x", content_type="image/png", metadata={"prompt": "ж" * METADATA_MAX_BYTES, "seed": "1"})
    assert storage.head("long").size_bytes == 1


def test_the_keys_of_one_attempt(storage: Storage) -> None:
    for fence in (1, 2):
        storage.put(output_key("job", fence, 0, "png"), b"x", content_type="image/png", metadata={})
    assert storage.keys("outputs/job/1/") == ["outputs/job/1/0.png"]
    storage.delete("outputs/job/1/0.png")
    assert storage.keys("outputs/job/") == ["outputs/job/2/0.png"]


def test_a_wrong_key_is_a_storage_failure(s3: S3Location) -> None:
    wrong = S3Location(s3.endpoint_url, s3.bucket, s3.access_key_id, "wrong")
    with pytest.raises(StorageUnavailable):
        connect_storage(wrong.settings(Settings())).put("k", b"x", content_type="image/png", metadata={})


def test_a_server_that_is_away_is_reported() -> None:
    away = S3Location("http://127.0.0.1:1", "granule", "key", "secret")
    with pytest.raises(StorageUnavailable):
        connect_storage(away.settings(Settings())).head("k")

"""Audio files of others that name other files, or hosts: nothing but the file itself is read."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.audio.recording import decode
from pipeline.errors import ClipFailedError, Code

pytest.importorskip("av")

PLAYLISTS = {
    "a list beside it": "ffconcat version 1.0\nfile other.wav\n",
    "a list of paths": "ffconcat version 1.0\nfile {folder}/other.wav\n",
    "a list of hosts": "ffconcat version 1.0\nfile http://{host}/x.wav\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{folder}/other.wav\n#EXT-X-ENDLIST\n",
    "HLS of a host": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{host}/x.ts\n#EXT-X-ENDLIST\n",
    "PLS": "[playlist]\nFile1=http://{host}/x.wav\n",
    "a session": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_what_a_file_names_is_not_opened(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("other.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 16_000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host, port = server.getsockname()
        text = PLAYLISTS[name].format(folder=tmp_path, host=f"{host}:{port}", port=port)
        with pytest.raises(ClipFailedError) as caught:
            decode(text.encode())
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    assert caught.value.error.code == Code.UNDECODABLE
    assert "timed out" not in caught.value.error.message, "nothing was waited for"


def test_what_is_no_audio_is_not_told() -> None:
    with pytest.raises(ClipFailedError) as caught:
        decode(b"root:x:0:0:the secret of a file\n" * 9)
    assert "secret" not in caught.value.error.message
    assert "root" not in caught.value.error.message

"""The commands of the page about remote machines, run through a real sshd."""

import getpass

import pytest
from pages import Shell, blocks, put_sample

PAGE = "docs/howto/remote-machine.md"


@pytest.mark.slow  # every command runs in its own process, including a deployment
def test_the_page_about_remote_machines_runs(far, tmp_path, once, bundled_model, monkeypatch):
    page = tmp_path / "page"
    page.mkdir()
    put_sample(page, once, bundled_model)
    config = far.folder / "ssh_config"
    host = f"Host board\n  HostName 127.0.0.1\n  Port {far.port}\n  User {getpass.getuser()}\n"
    config.write_text(host + config.read_text())
    monkeypatch.chdir(page)
    shell = Shell(page)
    run = [block for block in blocks(PAGE) if block.runs or block.mark == "ssh"]
    assert len(run) > 2
    for block in run:
        shell.run(block)
    far.wait_until_nothing_runs()

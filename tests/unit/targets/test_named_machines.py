"""The file of named machines: entries are read as written, users' text is kept, and errors name their place."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refusing

from emca_deploy.errors import InputError, OutputError, UnknownNameError
from emca_deploy.targets.named_machines import (
    Machine,
    add_machine,
    devices_file,
    open_target,
    read_machines,
    remove_machine,
)
from emca_deploy.targets.registry import parse

EDITED = """# my boards
[orin]  # upstairs
target = 'ssh://me@orin:2222'
power_mode = "MAXN"

# do not move
[nano]
notes = \"\"\"
[orin]
two lines\"\"\"
target = "ssh://nano"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own" / "devices.toml"
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(path))
    return path


@pytest.fixture
def edited(file: Path) -> Path:
    file.parent.mkdir()
    file.write_text(EDITED)
    return file


def test_none_without_a_file(file: Path) -> None:
    assert devices_file() == file
    assert read_machines() == {}
    assert not file.parent.exists()


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/is/ignored")
    assert devices_file() == tmp_path / ".config/emca-deploy/devices.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert devices_file() == tmp_path / "xdg/emca-deploy/devices.toml"
    assert add_machine(Machine("a", "cpu")) == tmp_path / "xdg/emca-deploy/devices.toml"
    assert read_machines() == {"a": Machine("a", "cpu")}


texts = st.text(st.characters(exclude_categories=("Cs",)))
names = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True).filter(lambda name: name.lower() not in ("cpu", "gpu", "jetson"))
boards = st.builds(
    Machine, names, st.sampled_from(["jetson", "ssh://h", "ssh://me@[::1]:22/gpu"]), st.none() | texts.filter(bool), texts
)
here = st.builds(Machine, names, st.sampled_from(["cpu", "gpu", "gpu:1"]), st.none(), texts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(devices=st.lists(boards | here, unique_by=lambda device: device.name, min_size=1, max_size=4), data=st.data())
def test_any_text_survives_adding_and_removing(file: Path, devices: list[Machine], data: st.DataObject) -> None:
    file.unlink(missing_ok=True)
    for device in devices:
        add_machine(device)
    assert list(read_machines().values()) == devices
    gone = data.draw(st.sampled_from(devices))
    remove_machine(gone.name)
    assert list(read_machines().values()) == [device for device in devices if device != gone]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(alphabet="[]\"'=.#\n\\u0041 atargetnos{}", max_size=60).map(str.encode))
def test_any_file_is_read_or_refused(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with suppress(InputError):
        assert all(device.name == name for name, device in read_machines().items())


def test_comments_of_people_stay(edited: Path) -> None:
    add_machine(Machine("third", "gpu:1"))
    assert edited.read_text() == EDITED + '\n[third]\ntarget = "gpu:1"\n'
    remove_machine("third")
    remove_machine("orin")
    text = edited.read_text()
    assert list(read_machines()) == ["nano"]
    assert "# my boards" in text
    assert "# do not move" in text
    assert "upstairs" not in text


@pytest.mark.parametrize(
    "text",
    [
        'a = {target = "cpu"}\n[b]\ntarget = "cpu"\n',
        '["a"]\ntarget = "cpu"\n[b]\ntarget = "cpu"',
        'a.target = "cpu"\nb.target = "cpu"\n',
        '[a]\r\ntarget = "cpu"\r\n\r\n[b]\r\ntarget = "cpu"\r\n',
        '\ufeff[a]\nnotes = """\n[a]\n"""\ntarget = "cpu"\n[b]\ntarget = "cpu"\n',
        '[b]\nnotes = """\n[a]\nno table\n"""\ntarget = "cpu"\n[a]\ntarget = "cpu"\n',
    ],
)
def test_however_a_table_is_written_it_is_removed_and_nothing_else(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_bytes(text.encode())
    before = read_machines()
    remove_machine("a")
    assert read_machines() == {"b": before["b"]}
    add_machine(Machine("c", "cpu"))
    assert list(read_machines()) == ["b", "c"]


def test_a_link_to_settings_elsewhere_stays_one(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    (tmp_path / "dotfiles.toml").write_text("")
    file.symlink_to(tmp_path / "dotfiles.toml")
    add_machine(Machine("a", "cpu"))
    assert file.is_symlink()
    assert "[a]" in (tmp_path / "dotfiles.toml").read_text()


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (Machine("", "cpu"), "device ''"),
        (Machine("a b", "cpu"), "device 'a b'"),
        (Machine("ä", "cpu"), "device 'ä'"),
        (Machine("a.b", "cpu"), "device 'a.b'"),
        (Machine("a\n", "cpu"), "device 'a"),
        (Machine("cpu", "ssh://h"), "device 'cpu'"),
        (Machine("Jetson", "ssh://h"), "device 'Jetson'"),
        (Machine("a", "orin.local"), "'orin.local'"),
        (Machine("a", "cpu:1"), "'cpu:1'"),
        (Machine("a", "gpu:x"), "'gpu:x'"),
        (Machine("a", "http://h"), "'http://h'"),
        (Machine("a", ""), "''"),
        (Machine("a", "ssh://"), "'ssh://'"),
        (Machine("a", "ssh://-oProxyCommand=x"), "'ssh://-oProxyCommand=x'"),
        (Machine("a", "ssh://h:99999"), "'ssh://h:99999'"),
        (Machine("a", "cpu", "MAXN"), "target 'cpu'"),
        (Machine("a", "jetson", ""), "power mode"),
        (Machine("a", "cpu", None, "\udcff"), "UTF-8"),
    ],
)
def test_a_device_that_cannot_be_used_is_not_written(file: Path, device: Machine, said: str) -> None:
    with refusing(InputError, said):
        add_machine(device)
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]\ntarget = cpu\n", "at line 2"),
        ('[a]\ntarget = "cpu"\n[a]\ntarget = "cpu"\n', "at line 3"),
        ("\n[a", "TOML"),
        ("a = " + "[" * 5000, "TOML"),
        ('a = "cpu"\n', "'a'"),
        ("[a]\ntarget = 3\n", "[a]: target"),
        ('[a]\nnotes = "x"\n', "[a]: "),
        ('[a]\ntarget = "cpu"\nhost = "h"\n', "[a]: "),
        ('[a]\nhost = "a b"\n', "names no machine"),
        ('[a]\nhost = "h"\nkind = "moon"\n', "names no machine"),
        ('[a]\nkind = "moon"\n', "'moon'"),
        ("[a]\nhost = 3\n", "[a]: host"),
        ('[a]\ntarget = "moon"\n', "'moon'"),
        ('[a]\ntarget = "cpu"\npowermode = "15W"\n', "powermode"),
        ('["a b"]\ntarget = "cpu"\n', "device 'a b'"),
        ('[gpu]\ntarget = "cpu"\n', "'gpu'"),
    ],
)
def test_a_broken_file_is_refused_with_its_place_and_left_alone(file: Path, text: str, said: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    for use in (read_machines, lambda: add_machine(Machine("new", "cpu")), lambda: remove_machine("a"), lambda: open_target("a")):
        with pytest.raises(InputError) as caught:
            use()
        assert str(file) in caught.value.problem
        assert said in caught.value.problem
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ('host = "me@orin:2222"\nkind = "jetson"', "ssh://me@orin:2222/jetson"),
        ('host = "orin"', "ssh://orin"),
        ('host = "[::1]"\nkind = "gpu:1"', "ssh://[::1]/gpu:1"),
        ('kind = "gpu"', "gpu"),
    ],
)
def test_a_host_and_a_kind_are_a_target(file: Path, text: str, target: str) -> None:
    file.parent.mkdir()
    file.write_text(f'[a]\n{text}\nnotes = "n"\n')
    device = read_machines()["a"]
    assert device == Machine("a", target, None, "n")
    for key in ("host", "kind"):
        written = re.search(f'^{key} = "(.*)"', text, re.MULTILINE)
        assert device.to_dict()[key] == (written[1] if written else None)
    add_machine(Machine("b", "cpu"))
    assert text in file.read_text()


def test_bytes_that_are_no_text_have_a_line(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b'[a]\ntarget = "\xff"\n')
    with refusing(InputError, file, "line 2"):
        read_machines()


def test_a_folder_is_no_file_of_devices(file: Path) -> None:
    file.mkdir(parents=True)
    with refusing(InputError, file):
        read_machines()


def test_a_place_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMCA_DEPLOY_DEVICES", str(tmp_path / "file" / "devices.toml"))
    with refusing(OutputError, tmp_path / "file"):
        add_machine(Machine("a", "cpu"))


def test_a_name_twice_and_a_name_unknown(edited: Path) -> None:
    with refusing(InputError, "'orin'"):
        add_machine(Machine("orin", "cpu"))
    with pytest.raises(UnknownNameError) as caught:
        remove_machine("orim")
    assert "nearest: orin" in caught.value.remedy
    assert edited.read_text() == EDITED


def test_names_are_targets(edited: Path) -> None:
    assert open_target("orin") == (parse("ssh://me@orin:2222"), "MAXN")
    assert open_target("orin", "15W") == (parse("ssh://me@orin:2222"), "15W")
    assert open_target("nano") == (parse("ssh://nano"), None)
    assert open_target(None, "15W") == (parse("cpu"), "15W")
    with pytest.raises(UnknownNameError) as caught:
        open_target("orion")
    assert caught.value.problem == "no target is called 'orion'"
    assert "nearest: orin" in caught.value.remedy


@pytest.mark.parametrize("target", ["cpu", "gpu", "gpu:1", "jetson", "ssh://me@host"])
def test_a_target_that_is_no_name_does_not_need_the_file(file: Path, target: str) -> None:
    file.mkdir(parents=True)  # reading this file would fail
    assert open_target(target) == (parse(target), None)


@pytest.mark.parametrize("target", ["ssh:host", "cpu:0", "jetson:1", "gpu:x", "tpu:0"])
def test_what_is_neither_a_target_nor_a_name(file: Path, target: str) -> None:
    file.mkdir(parents=True)
    with pytest.raises(InputError):
        open_target(target)

"""The tree of errors: exit codes, both lines, and pickling to another process."""

import pickle

import pytest

from emca_deploy import errors
from emca_deploy.errors import EmcaError, GateError, InputError, MissingError, UnknownNameError

EVERY_ERROR = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_exit_codes_are_those_of_the_command_line(kind):
    expected = (
        2 if issubclass(kind, InputError) else 3 if issubclass(kind, MissingError) else 4 if issubclass(kind, GateError) else 1
    )
    assert kind.exit_code == expected
    assert issubclass(kind, EmcaError)


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_keeps_both_lines_and_survives_a_pickle(kind):
    error = pickle.loads(pickle.dumps(kind("a.onnx: broken", "make it again")))
    assert type(error) is kind
    assert (error.problem, error.remedy) == ("a.onnx: broken", "make it again")
    assert str(error) == "a.onnx: broken (make it again)"


def test_every_class_is_in_the_tree_of_the_module_docstring_and_public():
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, EmcaError)}
    assert classes == set(errors.__all__)
    assert {name for name in classes if name not in (errors.__doc__ or "")} == set()


def test_an_unknown_name_suggests_the_nearest():
    error = UnknownNameError.of("backend", "onnxruntim", ["onnxruntime", "openvino", "torch"], "see --help")
    assert error.problem == "no backend is called 'onnxruntim'"
    assert error.remedy.startswith("nearest: onnxruntime")
    assert error.remedy.endswith("; see --help")
    assert error.exit_code == 2


def test_an_unknown_name_like_no_other_suggests_nothing():
    error = UnknownNameError.of("backend", "zzz", ["onnxruntime"], "see --help")
    assert error.remedy == "see --help"

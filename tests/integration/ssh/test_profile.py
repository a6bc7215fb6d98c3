"""`profile` through a real sshd."""

import json

from emca_deploy.cli import run


def profile(capfd, model, target, *more):
    code = run(
        [
            "profile",
            str(model),
            "--target",
            target,
            "--duration",
            "0.3",
            "--max-duration",
            "0.3",
            "--warmup",
            "0.1",
            "--json",
            *more,
        ]
    )
    out, err = capfd.readouterr()
    return code, json.loads(out) if out else None, err


def test_a_model_is_measured_over_there(far, model, capfd):
    code, document, err = profile(capfd, model, far.target)
    assert code == 0, err
    (result,) = document["results"]
    assert result["artifact"] == str(model)
    assert result["target"] == far.target
    assert document["environment"]["ssh"]["target_there"] == "cpu"
    far.wait_until_nothing_runs()

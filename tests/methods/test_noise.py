"""Uploads are no longer than the clipping length, and carry exactly the noise that they should."""

import numpy as np
import pytest
from scipy.stats import kstest, norm

from pfmsmt.core import arrays
from pfmsmt.core.types import Role, Stream
from pfmsmt.methods.noise import gaussian, noised, seeded
from tests.support.quadratic import EVERY_METHOD, TEMPLATE, build, federation, locked, run, same, values

SILENT = ("local", "linear")
SHARING = [name for name in EVERY_METHOD if name not in SILENT]
FEDAVG = {"server_optimizer": "plain", "server_learning_rate": 1.0}


def uploads(method, phase=0, round=1):
    """Client ES's download and upload, without and with `change` of the method."""
    data = federation(3, dtype=np.float32)
    start = values(0, dtype=np.float32)
    server = locked(method.init(start, tuple(data)))
    received = locked(method.phases[phase].broadcast(server, "ES"))
    stream = Stream(0, "ES", round, phase)
    upload, _ = method.phases[phase].client_update(received, method.init_client(start), data["ES"], stream)
    return received, upload


def vector(received, upload):
    """All that an upload tells beside what was received: changes, then each task's share."""
    changes = arrays.subtract(upload.arrays, {name: received[name] for name in upload.arrays})
    return np.concatenate([arrays.flatten(part) for part in (changes, *upload.by_task.values())]).astype(np.float64)


@pytest.mark.parametrize(
    ("name", "changes"),
    [*((name, {}) for name in SHARING), ("pf_msmtrec", {"coordinate": "clients_and_tasks"})],
)
def test_a_long_upload_is_shrunk_to_the_clipping_length(name, changes):
    plain = build(name, **changes)
    whole = vector(*uploads(plain))
    length = np.linalg.norm(whole)
    clipped = vector(*uploads(noised(plain, clip=length / 4, noise=0.0, entropy=seeded)))
    # float32 sums of start and change: some rounding of the parameters' own size
    np.testing.assert_allclose(clipped, whole / 4, rtol=0, atol=1e-6)
    assert np.linalg.norm(clipped) == pytest.approx(length / 4, rel=1e-5)


@pytest.mark.parametrize("name", EVERY_METHOD)
def test_a_short_upload_stays_as_it_is(name):
    received, upload = uploads(build(name))
    _, clipped = uploads(noised(build(name), clip=1e6, noise=0.0, entropy=seeded))
    assert clipped.releases == 0
    for part, other in zip((clipped.arrays, *clipped.by_task.values()), (upload.arrays, *upload.by_task.values()),
                           strict=True):  # fmt: skip
        assert part.keys() == other.keys()
        # Up to the last bit of start + (end - start)
        assert all(np.allclose(part[n], other[n], rtol=0, atol=4e-7) for n in part)
    assert received.keys() >= clipped.arrays.keys()


def test_noise_is_what_the_random_bytes_say():
    """Read back from the bytes by another road: scipy's quantiles of the 52 leading bits."""
    changes = {"coordinate": "clients_and_tasks"}
    read = []

    def entropy(stream):
        generator = np.random.default_rng(5)

        def take(count):
            read.append(generator.bytes(count))
            return read[-1]

        return take

    clip, noise = 0.5, 0.8
    clean = vector(*uploads(noised(build("pf_msmtrec", **changes), clip=clip, noise=0.0, entropy=seeded)))
    noisy = vector(*uploads(noised(build("pf_msmtrec", **changes), clip=clip, noise=noise, entropy=entropy)))
    leading = [int.from_bytes(b"".join(read)[i : i + 8], "little") >> 12 for i in range(0, 8 * len(clean), 8)]
    assert sum(map(len, read)) == 8 * len(clean)
    expected = norm.ppf([(bits + 0.5) / 2**52 for bits in leading])
    np.testing.assert_allclose((noisy - clean) / (noise * clip), expected, rtol=0, atol=1e-5)


def test_random_bytes_become_standard_normal_numbers():
    drawn = gaussian(200_000, np.random.default_rng(1).bytes)
    assert kstest(drawn, "norm").pvalue > 0.01
    assert abs(drawn.mean()) < 4 / np.sqrt(len(drawn))
    assert gaussian(1, lambda count: b"\x00" * count)[0] == pytest.approx(norm.ppf(2.0**-53))
    assert gaussian(1, lambda count: b"\xff" * count)[0] == pytest.approx(-norm.ppf(2.0**-53))


def test_seeded_noise_repeats_and_no_two_uploads_share_it():
    method = noised(build("pf_msmtrec"), clip=1.0, noise=1.0, entropy=seeded)
    first, again = (uploads(method)[1] for _ in range(2))
    assert same(dict(first.arrays), dict(again.arrays))
    streams = [Stream(seed, client, number, phase) for seed in (0, 1) for client in ("ES", "NL")
               for number in (1, 2) for phase in (0, 1)]  # fmt: skip
    assert len({seeded(stream)(16) for stream in streams}) == len(streams)
    # ... nor with what training draws
    training = {stream.generator().bytes(16) for stream in streams}
    assert training.isdisjoint({seeded(stream)(16) for stream in streams})


def test_every_noised_upload_is_counted():
    method = noised(build("pf_msmtrec"), clip=1.0, noise=1.0, entropy=seeded)
    assert [uploads(method, phase, number)[1].releases for number in (1, 2, 3) for phase in (0, 1)] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    single = noised(build("fedavg"), clip=1.0, noise=1.0, entropy=seeded)
    assert [uploads(single, 0, number)[1].releases for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize("name", SILENT)
def test_where_nothing_is_uploaded_nothing_is_noised_or_counted(name):
    data, start = federation(3), values(0)
    noisy = noised(build(name), clip=1e-6, noise=9.0, entropy=seeded)
    assert same(run(noisy, start, data).served, run(build(name), start, data).served)
    assert uploads(noisy)[1].releases == 0


def test_running_variances_stay_numbers():
    """Noise of ten times their size would turn half of them below zero."""
    method = noised(build("fedavg"), clip=10.0, noise=1.0, entropy=seeded)
    name = "norm/layers.0.norm_variance"
    assert TEMPLATE[name].role is Role.NORM
    drawn = [uploads(method, 0, number)[1].arrays[name] for number in range(1, 11)]
    assert all((a >= 0).all() for a in drawn)
    assert any((a == 0).any() for a in drawn)
    assert any((uploads(method, 0, number)[1].arrays["norm/layers.0.norm_mean"] < 0).any() for number in range(1, 11))


def test_with_equal_parts_the_server_averages_noised_uploads():
    """FedAvg's plain step is the mean of what it gets: noise is on uploads and nowhere else."""
    method = noised(build("fedavg", **FEDAVG), clip=1.0, noise=0.5, entropy=seeded)
    data = {k: client._replace(examples=7) for k, client in federation(2).items()}
    start = values(0)
    server = method.init(start, tuple(data))
    phase = method.phases[0]
    sent = {k: phase.client_update(phase.broadcast(server, k), method.init_client(start), data[k],
                                   Stream(0, k, 1, 0))[0] for k in data}  # fmt: skip
    after = phase.server_update(server, sent).server["global"]
    for name, array in after.items():
        np.testing.assert_allclose(array, (sent["ES"].arrays[name] + sent["FR"].arrays[name]) / 2, rtol=0, atol=1e-12)

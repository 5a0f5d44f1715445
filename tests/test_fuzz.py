"""Some damaged files for every reader; `make fuzz` reads 2,000 for each."""

import numpy as np
import pytest

from tests import fuzzing

FILES = {'images': 120, 'mat': 60, 'npz': 300, 'checkpoint': 300}  # 400 of the others
FAULT = {
    'images': 7, 'mat': 9, 'points': 9, 'scores': 9, 'npz': 11, 'safetensors': 11,
    'checkpoint': 4, 'reproduce': 4, 'metrics': 4, 'acquisition': 4, 'config': 5,
}  # fmt: skip
DAMAGE = 'bits flipped, bytes overwritten, cut, doubled, crossed, fields at their extremes'


def readers():
    for name in fuzzing.READERS:
        outcome = 'a result or one error in words; no crash, under 5 s and 1 GB'
        if name == 'checkpoint':
            outcome = 'each change found by the manifest, the step before is used'
        mark = pytest.mark.fault(
            row=FAULT[name], injected=f'{name}: {DAMAGE}', outcome=outcome
        )  # fmt: skip
        yield pytest.param(name, marks=mark)


@pytest.fixture(scope='module')
def child():
    with fuzzing.Child() as child:
        yield child


@pytest.mark.parametrize('reader', [*readers()])
def test_a_damaged_file_is_read_or_refused_in_words(child, reader, tmp_path, record_property):
    files = FILES.get(reader, 400)
    report = fuzzing.fuzz(
        child, reader, files, seed=1, folder=tmp_path / 'made', out=tmp_path / 'faults'
    )
    record_property('measured', str(report))
    assert not report.faults, '\n'.join(report.faults)
    assert report.counts.total() == files and report.counts['refused'] > files / 20


@pytest.mark.slow
@pytest.mark.parametrize('reader', [*readers()])
def test_2000_damaged_files(child, reader, tmp_path, record_property):
    report = fuzzing.fuzz(
        child, reader, 2000, seed=0, folder=tmp_path / 'made', out=tmp_path / 'faults'
    )
    record_property('measured', str(report))
    assert not report.faults, '\n'.join(report.faults)


@pytest.mark.parametrize('order, words', [
    ('raise', "KeyError: 'a'"),
    ('lines', "an error of other lines: 'one"),
    ('end', 'the process ended with -11'),
    ('spin', 'it took more than 1 s'),
    ('sleep', 'it took more than 3 s'),
    ('fill', 'it took 12'),
])  # fmt: skip
def test_faults_are_found(tmp_path, order, words):
    (tmp_path / 'a').write_text(order)
    (tmp_path / 'b').write_text('')
    seconds = 0.25 if order == 'sleep' else 1  # of CPU; it may wait 12 times as long
    with fuzzing.Child(seconds=seconds, megabytes=100, bare=True) as child:
        outcome, found = child.ask('order', tmp_path / 'a')
        assert outcome == 'FAULT' and found.startswith(words)
        assert child.ask('order', tmp_path / 'b') == ('read', '')


def test_a_fault_is_kept_with_its_bytes(tmp_path):
    class Made:
        """A reader of b'whole' that takes all but a file that begins with another letter."""

        def make(self, reader, folder):
            (folder / 'a').write_bytes(b'whole')
            return [folder / 'a']

        def ask(self, reader, path):
            good = path.read_bytes().startswith(b'w')
            return ('read', '') if good else ('FAULT', 'another letter')

    report = fuzzing.fuzz(Made(), 'made', 50, seed=3, folder=tmp_path, out=tmp_path / 'out')
    kept = [path.read_bytes() for path in (tmp_path / 'out').iterdir()]
    assert len(kept) == len(report.faults) == report.counts['FAULT'] > 5
    assert not any(data.startswith(b'w') for data in kept)
    assert (tmp_path / 'a').read_bytes() == b'whole'
    assert str(report).startswith(f'made: 50 files, {report.counts["read"]} read, 0 refused, ')


def test_damage_changes_a_file_repeats_itself_and_is_of_every_kind():
    whole, other = bytes(range(200)), b'other' * 50

    def damaged(seed, data):
        return fuzzing.mutated(np.random.default_rng(seed), data, other)

    found = [damaged(seed, whole) for seed in range(300)]
    assert found == [damaged(seed, whole) for seed in range(300)]
    assert whole not in found and len({*found}) > 290
    assert min(map(len, found)) < 100 and max(map(len, found)) > 300
    for kind in fuzzing.KINDS:
        made = {kind(np.random.default_rng(seed), b'a word, 12', other) for seed in range(40)}
        assert len(made) > 5, kind
    texts = [damaged(seed, b'{"step": 1}\n' * 20) for seed in range(300)]
    assert sum(text.isascii() for text in texts) > 150
    assert damaged(0, b'') != b''

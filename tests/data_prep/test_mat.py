"""The .mat reader: values, and files that are damaged, hang or crash their reader."""

import os
import pathlib
import signal
import struct

import numpy as np
import pytest
import scipy.io

from data_prep import mat
from data_prep.shanghaitech import made
from data_prep.source import BadFile

# Bytes of an uncompressed annotation that crash scipy.io.loadmat (found by random mutation), or at
# least make it unreadable in another version of scipy.
CRASHING = ((576, 249), (329, 152), (328, 192))
LARGE = 3 << 29  # bytes, above the reader's limit
MI_DOUBLE = 9  # the type of doubles in a file of version 5


@pytest.fixture(scope='module')
def reader():
    with mat.MatReader() as reader:
        yield reader


def uncompressed(path):
    record = np.empty((1, 1), [('location', object), ('number', object)])
    record[0, 0] = (np.arange(24.0).reshape(12, 2), np.array([[12]], np.uint16))
    cell = np.empty((1, 1), object)
    cell[0, 0] = record
    scipy.io.savemat(path, {'image_info': cell}, do_compression=False)
    return bytearray(path.read_bytes())


def test_reads_what_loadmat_reads(reader, tmp_path):
    points = np.random.default_rng(0).normal(size=(7, 2))
    made.write_annotation(tmp_path / 'a.mat', points)
    oracle = scipy.io.loadmat(tmp_path / 'a.mat')['image_info'][0, 0][0, 0]
    info = mat.unwrap(reader.read(tmp_path / 'a.mat')['image_info'])
    np.testing.assert_array_equal(info['location'], oracle[0])
    np.testing.assert_array_equal(info['location'], points)
    assert info['number'].dtype == oracle[1].dtype and info['number'].tolist() == [[7]]


def test_numbers_text_and_cells_keep_shape_and_type(reader, tmp_path):
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = 'crowd', np.array([[1, 2, 3]], np.uint8)
    scipy.io.savemat(tmp_path / 'a.mat', {'annPoints': np.eye(3, 2), 'cell': cell})
    value = reader.read(tmp_path / 'a.mat')
    np.testing.assert_array_equal(value['annPoints'], np.eye(3, 2))
    assert value['cell'].shape == (1, 2)
    assert value['cell'][0, 0].item() == 'crowd'
    assert value['cell'][0, 1].dtype == np.uint8 and value['cell'][0, 1].tolist() == [[1, 2, 3]]


@pytest.mark.fault(
    row=9,
    injected='headers that crash scipy',
    outcome='an error with the file; the parent lives and reads the next one',
)
@pytest.mark.parametrize(('at', 'value'), CRASHING)
def test_a_file_that_crashes_scipy_is_named_and_the_next_one_is_read(reader, tmp_path, at, value):
    data = uncompressed(tmp_path / 'a.mat')
    data[at] = value
    (tmp_path / 'bad.mat').write_bytes(data)
    with pytest.raises(BadFile, match=r'bad\.mat'):
        reader.read(tmp_path / 'bad.mat')
    assert 'image_info' in reader.read(tmp_path / 'a.mat')


@pytest.mark.fault(
    row=9,
    injected='a reading process that dies of SIGSEGV',
    outcome='an error with the file and the signal',
)
def test_a_dying_child_is_named_by_its_signal(tmp_path):
    worker = tmp_path / 'worker.py'
    worker.write_text('import os, sys\nsys.stdin.readline()\nos.kill(os.getpid(), 11)\n')
    (tmp_path / 'a.mat').write_bytes(b'MATLAB 5.0 MAT-file')
    with (
        mat.MatReader(worker=worker) as reader,
        pytest.raises(BadFile, match=rf'a\.mat: damaged.*signal {int(signal.SIGSEGV)}'),
    ):
        reader.read(tmp_path / 'a.mat')


@pytest.mark.fault(
    row=9,
    injected='a reading process that hangs',
    outcome='ended, an error with the file',
)
def test_a_hanging_child_is_ended(tmp_path):
    worker = tmp_path / 'worker.py'
    pid_file = tmp_path / 'pid'
    worker.write_text(
        f'import os, time\nopen({str(pid_file)!r}, "w").write(str(os.getpid()))\ntime.sleep(60)\n'
    )
    (tmp_path / 'a.mat').write_bytes(b'MATLAB 5.0 MAT-file')
    with (
        mat.MatReader(worker=worker, timeout=1.0) as reader,
        pytest.raises(BadFile, match='more than 1 s'),
    ):
        reader.read(tmp_path / 'a.mat')
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


LATE = """
import json, pathlib, sys
held = []
for line in sys.stdin:
    name = pathlib.Path(json.loads(line)).name
    held.append(json.dumps({'variables': {'name': name}}))
    if name != 'slow.mat':
        print('\\n'.join(held), flush=True)
        held.clear()
"""


@pytest.mark.fault(
    row=9,
    injected='a reading process that answers after its time was over',
    outcome="an error with the file; the next file's values are its own",
)
def test_a_late_answer_is_not_the_next_files(tmp_path):
    worker = tmp_path / 'worker.py'
    worker.write_text(LATE)
    for name in ('slow.mat', 'next.mat'):
        (tmp_path / name).write_bytes(b'MATLAB 5.0 MAT-file')
    with mat.MatReader(worker=worker, timeout=0.1) as reader:
        with pytest.raises(BadFile, match=r'slow\.mat: .*more than 0\.1 s'):
            reader.read(tmp_path / 'slow.mat')
        reader.timeout = 30.0
        assert reader.read(tmp_path / 'next.mat') == {'name': 'next.mat'}


@pytest.mark.fault(
    row=9,
    injected='a .mat file of 232 bytes whose header claims 1.5 GiB',
    outcome='an error with the file; its reader takes less memory than the limit',
)
def test_a_file_that_claims_more_than_the_memory_limit_is_refused(tmp_path):
    path = tmp_path / 'a.mat'
    scipy.io.savemat(path, {'points': np.zeros((1, 5))}, do_compression=False)
    data = path.read_bytes()
    for form, before, claimed in (
        ('<2i', (1, 5), (1, LARGE // 8)),  # the shape
        ('<2I', (MI_DOUBLE, 40), (MI_DOUBLE, LARGE)),  # the type and bytes of the numbers
    ):
        assert data.count(struct.pack(form, *before)) == 1
        data = data.replace(struct.pack(form, *before), struct.pack(form, *claimed))
    path.write_bytes(data)
    with mat.MatReader() as reader:
        with pytest.raises(BadFile, match=r'a\.mat: not a readable MATLAB file \(MemoryError'):
            reader.read(path)
        status = pathlib.Path(f'/proc/{reader._child.pid}/status').read_text()
    peak = next(line for line in status.splitlines() if line.startswith('VmPeak:'))
    assert 1024 * int(peak.split()[1]) < 1 << 30


@pytest.mark.fault(row=9, injected='empty files and garbage', outcome='an error of one line')
@pytest.mark.parametrize('content', [b'', b'garbage' * 30, b'\0' * 600])
def test_garbage_is_an_error_of_one_line(reader, tmp_path, content):
    (tmp_path / 'a.mat').write_bytes(content)
    with pytest.raises(BadFile, match=r'a\.mat: ') as error:
        reader.read(tmp_path / 'a.mat')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'head', [b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(600), b'\x89HDF\r\n\x1a\n'.ljust(600)]
)
def test_version_73_is_named_with_its_cure(reader, tmp_path, head):
    (tmp_path / 'a.mat').write_bytes(head)
    with pytest.raises(BadFile, match=r"a\.mat: a MATLAB 7\.3 .*'-v7'"):
        reader.read(tmp_path / 'a.mat')


def test_a_missing_file_is_named(reader, tmp_path):
    with pytest.raises(BadFile, match=r'none\.mat: No such file'):
        reader.read(tmp_path / 'none.mat')


@pytest.mark.fault(row=9, injected='empty matrices of four shapes', outcome='no person')
@pytest.mark.parametrize('shape', [(0, 2), (0, 0), (2, 0), (0,)])
def test_empty_matrices_hold_no_point(tmp_path, shape):
    assert mat.as_points(np.zeros(shape), tmp_path).shape == (0, 2)


@pytest.mark.fault(
    row=9,
    injected='NaN and infinite points, other shapes',
    outcome='an error with the file',
)
@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (np.zeros((4, 3)), r'shape \[4, 3\]'),
        (np.zeros(4), r'shape \[4\]'),
        (None, 'not'),
        (np.array([[1.0, 2.0], [np.nan, 3.0]]), '1 points are not finite, the first is number 1'),
        (np.array([[np.inf, 2.0]]), 'not finite'),
    ],
)
def test_points_of_another_kind_are_an_error(tmp_path, value, message):
    with pytest.raises(BadFile, match=message):
        mat.as_points(value, tmp_path / 'a.mat')

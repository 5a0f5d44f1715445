"""Child process that reads MATLAB files: a path per line in, a reply per line out, both JSON.

Run by path, never imported: scipy.io.loadmat can crash its process on a damaged file, so it gets
one of its own.
"""

import base64
import json
import resource
import sys

import numpy as np
import scipy.io

MEMORY_LIMIT = 1 << 30  # bytes: a file that claims to hold more is damaged


def plain(value):
    """A loadmat value as JSON: numbers as bytes with dtype and shape, cells and structs nested."""
    if not isinstance(value, np.ndarray):
        return str(value)
    if value.dtype.names:
        fields = value.dtype.names
        items = [{name: plain(item[name]) for name in fields} for item in value.ravel()]
        return {'kind': 'struct', 'shape': value.shape, 'items': items}
    if value.dtype.kind == 'O':
        return {
            'kind': 'cell',
            'shape': value.shape,
            'items': [plain(item) for item in value.ravel()],
        }
    if value.dtype.kind == 'U':
        return {
            'kind': 'text',
            'shape': value.shape,
            'items': [str(item) for item in value.ravel()],
        }
    data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
    return {'kind': 'number', 'shape': value.shape, 'dtype': value.dtype.str, 'data': data}


def read(path):
    """The reply for one file: {'variables': ...} or {'error': one line}."""
    try:
        variables = scipy.io.loadmat(path)
        return {'variables': {k: plain(v) for k, v in variables.items() if not k.startswith('__')}}
    except Exception as error:  # loadmat raises nearly anything on a damaged file
        lines = str(error).splitlines() or ['']
        return {'error': f'{type(error).__name__}: {lines[0]}'}


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        sys.stdout.write(json.dumps(read(json.loads(line))) + '\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()

import numpy as np
import pytest

from anymodal.core.fingerprint import file_digest, fingerprint

VALUES = [
    (),
    ("ab",),
    ("a", "b"),
    (["a", "b"],),
    (["a"], "b"),
    (1,),
    ("1",),
    (1.0,),
    (None,),
    (np.arange(4),),
    (np.arange(4.0),),
    (np.arange(4).reshape(2, 2),),
    (np.array(["a", "b"]),),
    (np.array(["a", None], dtype=object),),
    (np.array(["a", "b"], dtype=object),),
]


def test_different_inputs_have_different_fingerprints():
    prints = [fingerprint(*values) for values in VALUES]
    assert len(set(prints)) == len(VALUES) and all(len(each) == 64 for each in prints)


def test_the_layout_in_memory_does_not_count():
    matrix = np.arange(12.0).reshape(3, 4)
    assert fingerprint(matrix) == fingerprint(np.asfortranarray(matrix))
    assert fingerprint(matrix) == fingerprint(np.repeat(matrix, 2, axis=0)[::2])


@pytest.mark.parametrize("values", VALUES[-4:])
def test_it_is_stable(values):
    assert fingerprint(*values) == fingerprint(*values)


def test_the_digest_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "f") == known
    assert file_digest(tmp_path / "f", "md5") == "900150983cd24fb0d6963f7d28e17f72"

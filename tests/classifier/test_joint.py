import numpy as np

from anymodal.classifier.joint import item_vector


def test_the_vector_of_an_item_is_of_one_modality_or_the_mean_of_both():
    audio, image = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    both = {"audio": 2 * audio, "image": image}
    assert np.allclose(item_vector(both, "audio"), audio)
    assert np.allclose(item_vector(both), [2**-0.5, 2**-0.5, 0])
    assert np.allclose(item_vector({"image": image}), image)
    # the mean of opposite vectors has no direction
    assert np.array_equal(item_vector({"audio": audio, "image": -audio}), np.zeros(3))

"""The random-projection quantizer: what a seed gives, on any machine."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from w2vbert.features.quantizer import RandomProjectionQuantizer


def frames(count: int, width: int = 160) -> torch.Tensor:
    """Numbers that are the same everywhere: exact in any floating type."""
    numbers = torch.arange(count * width, dtype=torch.float64)
    return ((numbers * 7919 % 2003 - 1001) / 512).view(count, width).float()


def test_codes_are_these_numbers() -> None:
    quantizer = RandomProjectionQuantizer(codebook_size=1024, num_codebooks=2, seed=5)
    assert quantizer(frames(6)).tolist() == [
        [704, 625], [445, 958], [981, 424], [268, 483], [191, 569], [214, 195],
    ]  # fmt: skip


def test_codes_are_the_entries_nearest_by_cosine() -> None:
    quantizer = RandomProjectionQuantizer(20, 50, 4, 3, seed=1)
    heard = frames(40, 20)
    codes = quantizer(heard)
    assert codes.shape == (40, 3)
    for book in range(3):
        projected = heard @ quantizer.projections[book]
        cosines = F.cosine_similarity(projected[:, None], quantizer.codebooks[book][None], dim=2)
        assert torch.equal(codes[:, book], cosines.argmax(dim=1))
        assert codes[:, book].unique().numel() > 10


def test_loudness_does_not_matter_but_the_seed_does() -> None:
    quantizer, heard = RandomProjectionQuantizer(20, 50, seed=1), frames(40, 20)
    assert torch.equal(quantizer(3.5 * heard), quantizer(heard))
    assert not torch.equal(RandomProjectionQuantizer(20, 50, seed=2)(heard), quantizer(heard))


def test_a_further_codebook_changes_none_before_it() -> None:
    one, two = (RandomProjectionQuantizer(20, 50, num_codebooks=number, seed=3) for number in (1, 2))
    heard = frames(40, 20)
    assert torch.equal(one(heard)[:, 0], two(heard)[:, 0])
    assert not torch.equal(two(heard)[:, 0], two(heard)[:, 1])


def test_many_frames_at_once_are_each_by_itself() -> None:
    quantizer, heard = RandomProjectionQuantizer(20, 50, seed=1), frames(2500, 20)
    assert torch.equal(quantizer(heard), torch.cat([quantizer(part) for part in heard.split(7)]))


def test_weights_are_of_published_shape_and_in_no_checkpoint() -> None:
    """Xavier: uniform within sqrt(6 / (160 + 16)); entries of unit length; nothing to train or to save."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    quantizer = RandomProjectionQuantizer(codebook_size=300)
    assert torch.equal(torch.get_rng_state(), before)
    bound = (6 / 176) ** 0.5
    assert bound * 0.99 < quantizer.projections.abs().max() <= bound
    assert abs(quantizer.projections.std().item() - bound / 3**0.5) < 0.005
    torch.testing.assert_close(quantizer.codebooks.norm(dim=2), torch.ones(1, 300))
    assert quantizer.state_dict() == {}
    assert list(quantizer.parameters()) == []

import math

import pytest
import torch

from cloc.models.prompter import BoxHead, Prompter, encode_points, make_patch_boxes

D, E, GRID = 16, 6, (3, 3)


def prompter(pool="prompt", token_positions=True, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    made = Prompter(D, E, pool=pool, token_positions=token_positions).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def boxes_xyxy(*shape, seed=0, dtype=torch.float64):
    low = torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.5
    return torch.cat([low, low + 0.1 + 0.3 * low.flip(-1)], dim=-1)


def tokens(batch, seed=1, dtype=torch.float64):
    return torch.randn(batch, GRID[0] * GRID[1], D, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def prompts_of(made, kind, batch, count):
    if kind == "box":
        return made.embed_boxes(boxes_xyxy(batch, count))
    phrases = torch.randn(batch, count, E, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return made.embed_phrases(torch.nn.functional.normalize(phrases, dim=-1))


@pytest.mark.parametrize("training", [True, False], ids=["prompts-projected", "image-projected"])
@pytest.mark.parametrize("kind", ["box", "phrase"])
@pytest.mark.parametrize(("batch", "count"), [(2, 3), (1, 1), (2, 0), (0, 3)])
def test_both_fast_paths_equal_the_whole_sequence(kind, batch, count, training):
    made = prompter().train(training)
    assert (made.prepare_image(tokens(1), GRID).keys is None) == training

    def run(function):
        raw = tokens(batch).requires_grad_()
        pooled = function(prompts_of(made, kind, batch, count), made.prepare_image(raw, GRID))
        weights = torch.linspace(-1, 1, pooled.numel(), dtype=pooled.dtype).view_as(pooled)
        made.zero_grad()
        (pooled * weights).sum().backward()
        gradients = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
        return pooled.detach(), raw.grad, gradients

    fast, plain = run(made.forward), run(made.forward_plain)
    assert fast[0].shape == (batch, count, D)
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fast[1], plain[1], rtol=1e-10, atol=1e-12)
    assert set(fast[2]) == set(plain[2])
    for name, gradient in plain[2].items():
        torch.testing.assert_close(fast[2][name], gradient, rtol=1e-9, atol=1e-11, msg=name)


def test_fast_path_agrees_in_single_precision():
    made = prompter(dtype=torch.float32)
    image = made.prepare_image(tokens(2, dtype=torch.float32), GRID)
    prompts = made.embed_boxes(boxes_xyxy(2, 4, dtype=torch.float32))
    torch.testing.assert_close(made(prompts, image), made.forward_plain(prompts, image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["prompt", "all"])
def test_an_embedding_does_not_depend_on_what_else_is_asked(pool):
    made, boxes = prompter(pool), boxes_xyxy(2, 5)
    image = made.prepare_image(tokens(2), GRID)
    together = made(made.embed_boxes(boxes), image)
    for m in range(5):
        alone = made(made.embed_boxes(boxes[:, m : m + 1]), image)
        torch.testing.assert_close(alone[:, 0], together[:, m], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("pool", ["prompt", "all"])
def test_permuting_boxes_permutes_the_result(pool):
    made, boxes, order = prompter(pool), boxes_xyxy(2, 5), torch.tensor([3, 0, 4, 2, 1])
    image = made.prepare_image(tokens(2), GRID)
    straight, permuted = (made(made.embed_boxes(b), image) for b in (boxes, boxes[:, order]))
    torch.testing.assert_close(permuted, straight[:, order])
    assert not torch.allclose(permuted, straight)


def test_pool_all_reads_the_image_tokens_too():
    image = prompter().prepare_image(tokens(1), GRID)
    prompt, everything = prompter("prompt"), prompter("all")
    prompts = prompt.embed_boxes(boxes_xyxy(1, 2))
    torch.testing.assert_close(everything(prompts, image), everything.forward_plain(prompts, image))
    assert not torch.allclose(everything(prompts, image), prompt(prompts, image))


def test_token_positions_tell_equal_patches_apart():
    """On an image of equal tokens, only the positions can say where a box lies."""
    same = torch.ones(1, 9, D, dtype=torch.float64)
    with_positions, without = prompter(), prompter(token_positions=False)
    assert with_positions.prepare_image(same, GRID).tokens.std(dim=1).max() > 0.1
    assert without.prepare_image(same, GRID).tokens.std(dim=1).max() < 1e-12


def test_the_image_is_read():
    made, prompts = prompter(), prompter().embed_boxes(boxes_xyxy(1, 2))
    one, other = (made(prompts, made.prepare_image(tokens(1, seed), GRID)) for seed in (1, 2))
    assert (one - other).abs().max() > 1e-3


def test_corners_of_a_box_are_two_tokens_of_their_own_kind():
    made = prompter()
    point = torch.full((1, 1, 4), 0.3, dtype=torch.float64)
    first, second = made.embed_boxes(point)[0, 0]
    assert first.shape == (D,)
    assert not torch.allclose(first, second)


def test_no_buffers():
    """A buffer that is not saved would come back as garbage from `from_pretrained`."""
    assert list(prompter().buffers()) == []


def test_the_code_stays_in_range_and_tells_points_apart():
    side = torch.linspace(0, 1, 33)
    points = torch.cartesian_prod(side, side)
    code = encode_points(points, 64, 16.0)
    assert code.shape == (33 * 33, 64)
    assert code.abs().max() <= 1
    distance = torch.cdist(code, code) + 10 * torch.eye(len(code))
    assert distance.min() > 0.1


def test_the_code_has_the_frequencies_it_names():
    x = 0.21
    code = encode_points(torch.tensor([[x, 0.0]]), 16, 8.0)[0]
    assert float(code[0]) == pytest.approx(math.sin(math.pi * x), abs=1e-6)  # the lowest: half a cycle
    assert float(code[3]) == pytest.approx(math.sin(2 * math.pi * 8.0 * x), abs=1e-5)  # the highest: 8 cycles
    assert float(code[7]) == pytest.approx(math.cos(2 * math.pi * 8.0 * x), abs=1e-5)
    assert code[8:].tolist() == [0.0] * 4 + [1.0] * 4  # y = 0


def test_patch_boxes_cover_the_canvas_row_by_row():
    found = make_patch_boxes((2, 4), torch.device("cpu"))
    assert found.shape == (8, 4)
    assert found[0].tolist() == [0, 0, 0.25, 0.5]
    assert found[1].tolist() == [0.25, 0, 0.5, 0.5]
    assert found[7].tolist() == [0.75, 0.5, 1, 1]


def test_projection_has_unit_norm():
    made = prompter()
    embeds = made.project(made(made.embed_boxes(boxes_xyxy(2, 3)), made.prepare_image(tokens(2), GRID)))
    assert embeds.shape == (2, 3, E)
    torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))


def test_box_head_stays_on_the_canvas():
    found = BoxHead(D)(100 * torch.randn(2, 3, D))
    assert found.shape == (2, 3, 4)
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_width_without_room_for_the_code_is_refused():
    with pytest.raises(ValueError, match=r"width divisible by 4.*got 18"):
        Prompter(18, 8)

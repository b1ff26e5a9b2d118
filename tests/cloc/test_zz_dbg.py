from test_planning import *
import sys
def test_x(spine_config):
    config = spine_config(**SIZES["larger"], train__activation_checkpointing=True)
    shapes = Shapes(images=24, caption_tokens=16, prompts=3, phrases=40, phrase_tokens=6)
    mc = build.make_model_config(config, build.make_tokenizer(config))
    M = sys.modules["cloc.planning.dry_step"]; MM = sys.modules["cloc.models.modeling"]
    w = lambda s: memory_of(s,1,0).total
    print("PACKED", w(dry_step(mc, shapes, Form(), False, True, "sdpa")), real_peak(config, shapes), flush=True)
    M.can_pack = MM.can_pack = lambda t: False
    print("UNPACKED", w(dry_step(mc, shapes, Form(), False, True, "sdpa")), real_peak(config, shapes), flush=True)

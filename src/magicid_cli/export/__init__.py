"""An identity as other tools want it: diffusers, ComfyUI, merged weights, with a model card."""

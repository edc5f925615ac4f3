"""How steps are carried out: one protocol, and the engines behind it.

    protocol          what the training loop asks of an engine
    plain             PyTorch alone: one process, or several that average their gradients
    zero              DeepSpeed's ZeRO 0-3 with offload
    deepspeed_config  the configuration that DeepSpeed receives, as a pure function of the recipe
    deepspeed_here    what DeepSpeed can do on this machine
    ranks             the processes of one run: who am I, what have we agreed on
    micro_batch       how a step is cut into what one device can hold
    choose            the engine that a recipe asks for

Importing the package imports neither torch nor DeepSpeed.
"""

"""The drawn world: people who exist nowhere, a studio that films them, and the miniature trained on those films."""

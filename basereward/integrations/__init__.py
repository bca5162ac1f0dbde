"""BaseReward inside other people's pipelines; each module is for another one, whose package it needs."""

# Everything a developer or a newcomer runs. `make` alone lists the targets.
GO ?= go

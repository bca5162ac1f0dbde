"""`python -m basereward`."""

from basereward.cli import main

raise SystemExit(main())

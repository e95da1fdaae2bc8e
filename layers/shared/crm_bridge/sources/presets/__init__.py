"""The presets: each sender in its own file. All lists of senders are derived from `PRESETS`."""

from collections.abc import Mapping

from crm_bridge.sources.preset import Preset
from crm_bridge.sources.presets.in_house import InHouse

PRESETS: Mapping[str, type[Preset]] = {preset.name: preset for preset in (InHouse,)}

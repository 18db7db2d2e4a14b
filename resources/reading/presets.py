"""The shapes in which vendors export events, as data: who is counted, when it was, and what is no activity.

A person has the id that the team gave to them, since requests to erase come with it; else the one of their device or
browser. What the vendors' pages say is cited in docs/sources.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from zoneinfo import ZoneInfo

from dpdau_assets.core.event_shape import EventShape, UnixUnit
from resources.reading.columns_option import activity_written, fields_written


@dataclass(frozen=True)
class Preset:
    """One vendor's shape, written as on the command line.

    `marks` are sets of columns by which the vendor is known. `naive_zone` is the zone that the vendor's times without
    one are in, `unit` that of its Unix times, None where it may be one of several.
    """

    name: str
    title: str
    columns: str
    active_when: str | None
    marks: tuple[frozenset[str], ...]
    naive_zone: str | None = None
    unit: UnixUnit | None = None

    @cached_property
    def shape(self) -> EventShape:
        """Where the fields stand."""
        return EventShape(
            fields_written(self.columns, self.name),
            activity_written(self.active_when, self.name) if self.active_when else None,
            self.unit,
            ZoneInfo(self.naive_zone) if self.naive_zone else None,
        )


_CALLS = "user_id=userId|user_id|anonymousId|anonymous_id,op='+',"
_NO_CALLS = "type|'track'!=identify,group,alias"


def _marks(*names: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(together.split()) for together in names)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Preset(
                "segment",
                "Segment",
                _CALLS + "ts=timestamp|originalTimestamp|original_timestamp|sentAt|sent_at|receivedAt|received_at",
                _NO_CALLS,
                _marks("anonymousid messageid", "anonymous_id sent_at received_at", "userid messageid"),
                "UTC",
            ),
            Preset(
                "rudderstack",
                "RudderStack",
                _CALLS + "ts=timestamp|originalTimestamp|original_timestamp|sentAt|sent_at|receivedAt|received_at",
                _NO_CALLS,
                _marks("anonymousid messageid channel", "anonymous_id sent_at received_at channel"),
                "UTC",
            ),
            Preset(
                "posthog",
                "PostHog",
                "user_id=distinct_id|person_id,op='+',ts=timestamp",
                "event!=$identify,$create_alias,$merge_dangerously,$groupidentify,$set",
                _marks("distinct_id event timestamp"),
                "UTC",
            ),
            Preset(
                "amplitude",
                "Amplitude",
                "user_id=user_id|device_id|amplitude_id,op='+',ts=event_time",
                "event_type!=$identify,$groupidentify",
                _marks("amplitude_id event_time"),
                "UTC",
            ),
            Preset(
                "mixpanel",
                "Mixpanel",
                "user_id=properties.distinct_id|distinct_id,op='+',ts=properties.time|time",
                "event|mp_event_name|event_name!=$identify,$create_alias,$merge",
                _marks("event properties", "distinct_id mp_event_name"),
                "UTC",
            ),
            Preset(
                "ga4",
                "Google Analytics 4",
                "user_id=user_id|user_pseudo_id,op='+',ts=event_timestamp",
                "event_name!=notification_receive,app_remove,os_update",
                _marks("event_timestamp user_pseudo_id"),
                unit="us",
            ),
            Preset(
                "snowplow",
                "Snowplow",
                "user_id=user_id|domain_userid|network_userid,op='+',ts=derived_tstamp|collector_tstamp",
                None,
                _marks("collector_tstamp domain_userid"),
                "UTC",
            ),
        )
    }
)


def looks_like(names: Sequence[str]) -> Preset | None:
    """The vendor whose columns these look like; of several, the one with more of them."""
    there = {name.strip().casefold() for name in names}
    known = [(len(mark), preset.name) for preset in PRESETS.values() for mark in preset.marks if mark <= there]
    return PRESETS[max(known)[1]] if known else None

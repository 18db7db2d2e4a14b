"""Faults that tests have to catch: what would be wrong, where, and which tests are named for it. Data only.

Each is a small edit of product code that leaves the program running: the `old` text stands exactly once in its file.
`plant_faults.py` plants them, one at a time, in a copy.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing that could be wrong.

    Attributes:
        name: says what is wrong.
        tests: files below dpdau_tests, or tests in them, that ask for the behaviour.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_COVERED = (
    "core/sketches/test_sketch_estimates.py::"
    "test_an_interval_holds_95_percent_also_where_noise_dominates_counted_out_exactly"
)
MECHANISMS = (
    Fault(
        "half-the-gaussian-noise",
        "resources/noise_opendp.py",
        'l2_distance(T="i64"), _usable(sigma))',
        'l2_distance(T="i64"), _usable(sigma / 2))',
        ("resources/test_noise.py::test_a_discrete_gaussian_has_the_sigma_asked_for",),
    ),
    Fault(
        "shared-sigmas-without-the-margin-of-being-discrete",
        "dpdau_assets/core/privacy/mechanisms.py",
        "usual = widened(DISCRETE_MARGIN)",
        "usual = widened(1.0)",
        (
            "core/privacy/test_mechanisms.py::test_a_shared_month_has_the_sigmas_of_the_contract",
            "core/privacy/test_mechanisms.py::test_a_month_of_discrete_noise_keeps_its_guarantee_by_another_accountant",
        ),
    ),
    Fault(
        "a-shared-month-is-priced-by-the-margin-alone",
        "dpdau_assets/core/privacy/mechanisms.py",
        "return discrete_mu(mechanism.sigma_day), discrete_mu(mechanism.sigma_month)",
        "return DISCRETE_MARGIN / mechanism.sigma_day, DISCRETE_MARGIN / mechanism.sigma_month",
        (
            "core/privacy/test_mechanisms.py::test_a_shared_month_is_never_priced_above_the_cap_it_is_calibrated_for",
            "core/privacy/test_mechanisms.py::test_noise_too_coarse_for_the_margin_is_as_much_larger_as_its_own_price_asks",
        ),
    ),
    Fault(
        "coarse-shared-noise-is-not-widened",
        "dpdau_assets/core/privacy/mechanisms.py",
        "if shared_mu2(usual) <= limit:",
        "if usual:",
        (
            "core/privacy/test_mechanisms.py::test_a_shared_month_is_never_priced_above_the_cap_it_is_calibrated_for",
            "test_docs.py::test_at_any_cap_and_month_the_exact_delta_is_below_that_of_the_price_and_the_price_within_the_cap",
        ),
    ),
    Fault(
        "a-month-charged-before-gets-the-price-of-today",
        "dpdau_assets/core/privacy/mechanisms.py",
        "if isinstance(mechanism, SharedNoiseByMargin):  # to",
        "if not mechanism:  # to",
        (
            "core/privacy/test_mechanisms.py::test_a_month_that_was_opened_under_the_price_of_the_margin_keeps_it",
            "core/publication/test_release.py::test_a_begun_month_that_was_charged_by_the_margin_goes_on_and_is_believed",
        ),
    ),
    Fault(
        "a-wrong-weight-in-the-streams-filter",
        "dpdau_assets/core/privacy/stream_filters.py",
        "STREAM_FILTER = (1024, -505, -126,",
        "STREAM_FILTER = (1024, -506, -126,",
        (
            "core/privacy/test_stream_filters.py",
            "core/privacy/test_mechanisms.py::test_the_stream_is_the_one_of_the_contract",
        ),
    ),
    Fault(
        "the-streams-sigma-is-rounded-down",
        "dpdau_assets/core/privacy/mechanisms.py",
        "math.ceil(100 * math.sqrt(sensitivity2",
        "math.floor(100 * math.sqrt(sensitivity2",
        (
            "core/privacy/test_mechanisms.py::test_the_stream_is_the_one_of_the_contract",
            "core/privacy/test_mechanisms.py::test_every_window_from_thirty_days_on_has_a_stream_that_keeps_its_cap",
        ),
    ),
    Fault(
        "the-streams-filter-reads-the-oldest-day-first",
        "dpdau_assets/core/privacy/mechanisms.py",
        "zip(mechanism.filter, reversed(history), strict=False)",
        "zip(mechanism.filter, history, strict=False)",
        (
            "core/privacy/test_mechanisms.py::test_without_noise_the_stream_publishes_the_statistic_exactly",
            "core/privacy/test_mechanisms.py::test_a_stream_output_is_an_exact_integer_however_large",
        ),
    ),
    Fault(
        "a-stream-forgets-the-oldest-day-of-its-filter",
        "dpdau_assets/core/publication/release.py",
        "ledger.frozen(run.name, len(stream.filter))",
        "ledger.frozen(run.name, len(stream.filter) - 1)",
        (
            "properties/audit/test_audit.py::test_a_streams_outputs_are_off_by_the_noise_that_was_priced",
            "core/publication/test_release.py::test_without_noise_mau_is_the_rule_of_the_contract_computed_another_way",
        ),
    ),
)

ACCOUNTING = (
    Fault(
        "the-month-in-the-middle-of-a-window-is-not-charged",
        "dpdau_assets/core/dates.py",
        "return tuple(takewhile(lambda month: month <= last, months_from(first)))",
        "return tuple(sorted({first, last}))",
        (
            "core/privacy/test_accounting.py",
            "core/publication/test_release.py::test_a_mau_on_the_first_of_march_is_charged_to_three_months",
        ),
    ),
    Fault(
        "a-cap-that-is-just-filled-refuses",
        "dpdau_assets/core/privacy/accounting.py",
        "return price.epsilon <= budget.epsilon",
        "return price.epsilon < budget.epsilon",
        ("core/privacy/test_accounting.py",),
    ),
    Fault(
        "epsilons-are-added-in-floats",
        "dpdau_assets/core/privacy/accounting.py",
        "return price.epsilon <= budget.epsilon",
        "return float(price.epsilon) <= float(budget.epsilon) + 1e-3",
        ("core/privacy/test_accounting.py::test_many_pure_numbers_that_are_a_hair_above_a_cap_together_are_refused",),
    ),
    Fault(
        "gaussians-may-pass-their-cap-by-a-hair",
        "dpdau_assets/core/privacy/accounting.py",
        "return price.mu2 <= mu_of(float(budget.epsilon), budget.delta) ** 2",
        "return price.mu2 <= mu_of(float(budget.epsilon), budget.delta) ** 2 * 1.003",
        (
            "core/privacy/test_accounting.py",
            "core/privacy/test_mechanisms.py::test_as_many_independent_numbers_as_a_cap_admits_cost_no_more_than_it",
        ),
    ),
    Fault(
        "pure-epsilon-is-added-as-mu",
        "dpdau_assets/core/privacy/accounting.py",
        "return Cost(epsilon=mechanism.epsilon, pure_rho=pure_rho(float(mechanism.epsilon)))",
        "return Cost(mu2=float(mechanism.epsilon) ** 2)",
        ("core/privacy/test_accounting.py",),
    ),
    Fault(
        "a-mixed-month-is-priced-by-the-gaussian-curve",
        "dpdau_assets/core/privacy/accounting.py",
        'return "gaussian" if price.pure_rho == 0 else "zcdp"',
        'return "gaussian"',
        ("core/privacy/test_accounting.py",),
    ),
    Fault(
        "an-independent-number-is-priced-without-the-margin",
        "dpdau_assets/core/privacy/mechanisms.py",
        "return DISCRETE_MARGIN / sigma",
        "return 1 / sigma",
        (
            "core/privacy/test_accounting.py::test_an_independent_number_is_priced_with_the_margin_of_being_discrete",
            "core/privacy/test_mechanisms.py::test_from_sigma_six_and_a_half_on_the_price_is_one_thousandth_above_the_continuous_one",
        ),
    ),
    Fault(
        "only-an-instances-first-number-is-charged-to-a-month",
        "dpdau_assets/core/budget/planning.py",
        "if charge not in charges:",
        "if not charges:",
        ("core/publication/test_release.py::test_independent_noise_is_charged_for_every_number",),
    ),
    Fault(
        "a-number-is-stored-without-its-charge",
        "dpdau_assets/core/budget/planning.py",
        "for charge in planned.charges:",
        "for charge in planned.charges[1:]:",
        (
            "core/publication/test_release.py::test_a_stream_is_charged_once_to_every_month_that_it_reads",
            "core/publication/test_release.py::test_independent_noise_is_charged_for_every_number",
        ),
    ),
)

PLANNING = (
    Fault(
        "the-restatement-is-not-priced",
        "dpdau_assets/core/privacy/schedule.py",
        "return month_days(month) * (1 + settings.restatements_per_month)",
        "return month_days(month)",
        ("core/privacy/test_schedule.py",),
    ),
    Fault(
        "the-last-window-that-reads-a-month-is-not-planned",
        "dpdau_assets/core/privacy/schedule.py",
        "last = first_window_end(month_end(month), settings.mau_window_days)",
        "last = first_window_end(month_end(month), settings.mau_window_days - 1)",
        ("core/privacy/test_schedule.py",),
    ),
    Fault(
        "a-stream-goes-on-with-another-sample",
        "dpdau_assets/core/budget/planning.py",
        "(last.mechanism, last.parameters) == (wanted.mechanism, wanted.parameters)",
        "last.mechanism == wanted.mechanism",
        ("core/budget/test_sketch_choice.py",),
    ),
    Fault(
        "a-stream-may-skip-days",
        "dpdau_assets/core/budget/planning.py",
        "if key.day == following or (",
        "if key.day >= following or (",
        ("core/publication/test_release.py::test_days_of_mau_follow_one_another_and_none_is_skipped",),
    ),
    Fault(
        "a-closed-month-is-only-asked-about-its-own-days",
        "dpdau_assets/core/budget/planning.py",
        "closed = [month for month in months_read(key.day, key.window_days)",
        "closed = [month for month in months_read(key.day, 1)",
        (
            "core/budget/test_forecast.py::test_a_month_that_a_restore_has_closed_is_refused_in_every_window_that_reads_it",
            "core/publication/test_restoring.py::test_the_stream_goes_on_as_another_one_with_the_first_day_that_reads_no_closed_month",
        ),
    ),
    Fault(
        "a-changed-setting-changes-the-cap-of-a-charged-month",
        "dpdau_assets/core/budget/planning.py",
        "return Budget(settings.cap(metric) if cap is None else cap,",
        "return Budget(settings.cap(metric),",
        ("core/budget/test_overrides.py",),
    ),
)

COST_SO_FAR = (
    Fault(
        "the-worst-user-of-a-month-is-taken-to-be-in-every-number",
        "dpdau_assets/core/privacy/cost_so_far.py",
        "j = np.arange(published + 1)",
        "j = np.array([published])",
        (
            "core/privacy/test_mechanisms.py::test_a_months_cost_grows_with_its_numbers_to_the_whole_price",
            "core/privacy/test_compositions.py",
        ),
    ),
    Fault(
        "a-streams-last-number-is-not-counted-as-spent",
        "dpdau_assets/core/privacy/cost_so_far.py",
        "published = (last_published - max(month, first_day)).days + 1",
        "published = (last_published - max(month, first_day)).days",
        (
            "core/privacy/test_mechanisms.py::test_a_streams_cost_so_far_is_that_of_the_worst_interval",
            "core/privacy/test_mechanisms.py::test_the_outputs_that_a_month_can_have_changed_are_its_windows_and_eight_days",
        ),
    ),
)

OLDER_FILES = (
    Fault(
        "an-older-file-is-taken-for-the-newest",
        "dpdau_assets/core/state/vouched_state.py",
        "return self._known(build, day, epoch, content) is None or build.without is not None",
        "return build.without is not None",
        (
            "core/state/test_older_files.py::test_an_older_copy_of_all_that_lives_brings_nobody_who_was_erased_back_into_a_number",
            "core/state/test_older_files.py::test_the_live_bytes_are_those_of_before_once_the_older_files_are_repaired",
        ),
    ),
    Fault(
        "an-older-file-that-lacks-events-is-read-all-the-same",
        "dpdau_assets/core/state/vouched_state.py",
        "            if self._known(build, day, epoch, digest(left)):\n",
        "            if build.current:\n",
        (
            "core/state/test_older_files.py::"
            "test_a_copy_that_lacks_events_folded_since_is_refused_whoever_is_in_it_and_says_how_to_restore",
        ),
    ),
    Fault(
        "a-file-that-was-unreadable-when-removals-were-applied-keeps-the-removed",
        "dpdau_assets/core/state/activity.py",
        "        kept.note_unreadable(unreadable, applied)\n",
        "",
        (
            "core/state/test_older_files.py::"
            "test_a_damaged_file_holds_up_no_other_erasure_and_is_without_the_erased_once_it_is_whole",
        ),
    ),
    Fault(
        "a-file-that-is-away-while-removals-are-applied-is-forgotten",
        "dpdau_assets/core/state/activity.py",
        "accountant.processed(), store.places()\n",
        "accountant.processed(), store.stored()\n",
        (
            "core/state/test_older_files.py::"
            "test_a_file_that_is_away_while_an_erasure_is_applied_brings_nobody_back_when_it_returns",
        ),
    ),
    Fault(
        "what-a-write-that-was-cut-short-replaced-goes-on-counting-as-the-newest",
        "dpdau_assets/core/state/activity.py",
        "    store.state.activity.resume()\n",
        "",
        (
            "core/state/test_older_files.py::"
            "test_after_an_erasure_that_was_cut_short_an_older_copy_is_no_more_the_newest_than_after_another",
            "core/state/test_older_files.py::test_after_a_fold_that_was_cut_short_a_copy_that_lacks_its_events_is_refused",
        ),
    ),
    Fault(
        "one-damaged-file-holds-up-every-erasure",
        "dpdau_assets/core/state/activity.py",
        "            unreadable.append(place)\n            return None\n",
        "            raise\n",
        (
            "core/state/test_older_files.py::"
            "test_a_damaged_file_holds_up_no_other_erasure_and_is_without_the_erased_once_it_is_whole",
        ),
    ),
    Fault(
        "a-fold-that-was-cut-short-leaves-files-that-the-ledger-does-not-know",
        "dpdau_assets/core/state/vouched_state.py",
        "        self._builds.put(coming)\n        return standing_builds\n",
        "        return standing_builds\n",
        (
            "properties/test_erased_never_existed.py::test_the_live_bytes_are_those_of_the_history_in_which_she_never_was",
            "core/state/test_older_files.py::test_after_a_fold_that_was_cut_short_a_copy_that_lacks_its_events_is_refused",
        ),
    ),
    Fault(
        "every-build-has-the-same-nonce",
        "resources/ledger_sql/builds.py",
        "return secrets.token_bytes(_NONCE_BYTES)",
        "return bytes(_NONCE_BYTES)",
        (
            "properties/test_traces.py::test_the_version_that_a_day_had_with_her_cannot_be_tried_out_once_she_is_erased",
            "core/state/test_older_files.py::test_the_version_of_an_earlier_state_cannot_be_made_again_from_any_key_that_lives",
        ),
    ),
    Fault(
        "an-erasure-renews-no-version-of-a-day-that-held-nobody",
        "dpdau_assets/core/state/activity.py",
        "            kept.renew()\n",
        "            pass\n",
        ("core/erasure/test_requests.py::test_with_every_day_marked_every_day_gets_another_version",),
    ),
)
TRACES = (
    Fault(
        "days-wait-for-dagster-while-the-receipt-says-verified",
        "dpdau_assets/core/erasure/receipts.py",
        "            _leave_no_marks(store)\n",
        "            pass\n",
        (
            "core/erasure/test_requests.py::test_days_that_wait_for_dagster_when_a_receipt_says_verified_tell_nothing",
            "properties/test_traces.py::test_the_ledger_says_nothing_of_the_days_on_which_an_erased_person_was",
        ),
    ),
    Fault(
        "a-change-by-arrivals-of-the-removed-outlives-their-receipt",
        "dpdau_assets/core/state/activity.py",
        "    store.state.rebuilds.mark_reported(changed)\n",
        "",
        (
            "core/erasure/test_requests.py::"
            "test_a_change_by_arrivals_that_dagster_was_not_told_of_is_a_mark_once_removals_are_applied",
        ),
    ),
    Fault(
        "the-texts-of-earlier-receipts-are-kept",
        "resources/ledger_sql/receipts.py",
        "            _forget_bodies(connection, [row.receipt for row in rows])\n",
        "",
        ("conformance/test_erasure_ledger.py::test_of_receipts_the_newest_text_is_kept_and_of_inspections_the_newest",),
    ),
    Fault(
        "an-inspection-from-before-an-erasure-is-kept",
        "dpdau_assets/core/state/activity.py",
        "    store.erasures.receipts.forget_inspection()\n",
        "",
        (
            "core/erasure/test_receipts.py::test_what_was_read_back_before_an_erasure_is_kept_no_longer_than_until_it_is_applied",
        ),
    ),
    Fault(
        "every-count-of-the-stream-is-kept",
        "dpdau_assets/core/publication/release.py",
        "            ledger.destroy_frozen(run.name, keep_last=len(stream.filter) - 1)",
        "            _ = None",
        ("properties/test_traces.py::test_of_a_streams_counts_only_those_are_kept_that_numbers_to_come_are_made_of",),
    ),
    Fault(
        "the-counts-of-a-stream-that-has-ended-are-kept",
        "dpdau_assets/core/publication/release.py",
        "        ledger.destroy_frozen(last.name, keep_last=0)",
        "        _ = None",
        (
            "core/publication/test_release.py::test_another_cap_begins_another_stream_once_its_windows_read_no_month_of_the_old_one",
        ),
    ),
)
PROGRESS = (
    Fault(
        "what-is-applied-is-believed-whatever-waits",
        "resources/ledger_sql/erasures.py",
        "    return through if row.waiting is None else min(through, row.waiting - 1)\n",
        "    return through\n",
        ("core/state/test_older_files.py::test_progress_that_was_set_by_hand_switches_no_erasure_off_and_is_found",),
    ),
    Fault(
        "rows-of-builds-are-held-to-nothing",
        "resources/ledger_sql/builds.py",
        "    if (rows or digests) and digests != [digest_of(rows)]:\n",
        "    if rows and not digests:\n",
        ("conformance/test_tampering.py::test_a_row_of_any_table_that_is_inserted_or_changed_or_deleted_is_found",),
    ),
    Fault(
        "receipts-are-held-to-no-signature",
        "resources/ledger_sql/receipts.py",
        "        if row.signature != signature or not same_text",
        "        if not same_text",
        ("conformance/test_tampering.py::test_a_signing_key_that_is_gone_or_another_is_found",),
    ),
)
ACTIVITY = (
    Fault(
        "a-late-event-brings-a-removed-user-back",
        "dpdau_assets/core/state/folding.py",
        "return subtract(unite([before, arrived]), removed)",
        "return unite([subtract(before, removed), arrived])",
        (
            "core/erasure/test_requests.py::test_a_replayed_archive_does_not_bring_an_erased_user_back",
            "core/state/test_activity.py",
        ),
    ),
    Fault(
        "an-event-after-the-seal-enters",
        "dpdau_assets/core/state/folding.py",
        "elif day in sealed:",
        "elif day in restated:",
        ("core/publication/test_release.py::test_what_comes_for_a_published_day_is_late_and_changes_no_later_number",),
    ),
    Fault(
        "an-event-after-the-seal-enters-under-the-next-salt-epoch",
        "dpdau_assets/core/state/folding.py",
        "elif day in sealed:",
        "elif day in sealed and epoch == epoch_of(day, store.settings.hash_salt_rotation_days):",
        (
            "core/publication/test_release.py::test_what_comes_for_a_published_day_changes_its_state_under_none_of_its_salt_epochs",
        ),
    ),
    Fault(
        "building-days-leaves-a-batch-out",
        "dpdau_assets/core/state/folding.py",
        "_folded(store.events.inbox.read(batches), late,",
        "_folded(store.events.inbox.read(batches[1:]), late,",
        (
            "core/publication/test_release.py::test_what_was_acknowledged_before_a_release_is_in_it",
            "core/state/test_activity.py",
        ),
    ),
    Fault(
        "a-batch-that-comes-while-the-inbox-is-folded-is-thrown-away",
        "dpdau_assets/core/state/folding.py",
        "    store.events.inbox.discard([batch for batch in batches if batch not in waiting])\n",
        "    store.events.inbox.discard(store.events.inbox.batches())\n",
        ("core/state/test_activity.py::test_a_batch_that_comes_while_the_inbox_is_folded_waits_for_the_next_fold",),
    ),
    Fault(
        "the-inbox-is-emptied-before-late-events-are-kept",
        "dpdau_assets/core/state/folding.py",
        "    store.state.late.replace(late)\n    store.events.quarantine.keep(dropped)\n",
        "    store.events.inbox.discard(batches)\n"
        "    store.state.late.replace(late)\n"
        "    store.events.quarantine.keep(dropped)\n",
        ("properties/test_killed.py",),
    ),
    Fault(
        "who-was-counted-already-counts-as-late",
        "dpdau_assets/core/state/folding.py",
        "    before = _or_empty(state.late.read(arrived.day, arrived.epoch))\n"
        "    new = subtract(arrived.keys, _or_empty(sealed_state))\n",
        "    before = _or_empty(state.late.read(arrived.day, arrived.epoch))\n    new = arrived.keys\n",
        ("core/publication/test_release.py::test_a_replay_of_the_whole_archive_makes_nobody_late",),
    ),
    Fault(
        "a-removal-leaves-late-events-in",
        "dpdau_assets/core/state/activity.py",
        "((store.state.activity, dropping_sketches), (store.state.late, _as_they_come))",
        "((store.state.activity, dropping_sketches),)",
        ("core/erasure/test_requests.py::test_an_erasure_takes_late_events_out_too",),
    ),
    Fault(
        "the-check-of-a-day-does-not-look-at-late-events",
        "dpdau_assets/core/state/activity.py",
        "(state.activity.read(day, epoch), state.late.read(day, epoch)) if",
        "(state.activity.read(day, epoch),) if",
        ("core/state/test_activity.py::test_who_is_left_in_a_day_is_seen_in_its_state_and_among_its_late_events",),
    ),
)

TOMBSTONES = (
    Fault(
        "a-removal-forgets-its-last-salt-epoch",
        "dpdau_assets/core/erasure/requests.py",
        "return range(epoch_of(settings.start_date, rotation), epoch_of(last_window, rotation) + 1)",
        "return range(epoch_of(settings.start_date, rotation), epoch_of(last_window, rotation))",
        ("core/publication/test_ingest.py::test_the_tombstone_epochs_reach_the_last_window_that_holds_the_user_out",),
    ),
    Fault(
        "a-removal-leaves-its-last-day-in",
        "dpdau_assets/core/tombstones.py",
        "self.days == number, self.days >= number)",
        "self.days == number, self.days > number)",
        (
            "core/state/test_activity.py::test_a_removal_that_came_first_stops_what_arrives_later",
            "core/erasure/test_requests.py::test_activity_after_the_erasure_day_counts_in_dau_again",
        ),
    ),
    Fault(
        "a-removed-user-is-held-out-to-the-day-and-not-to-the-months-end",
        "dpdau_assets/core/tombstones.py",
        "return month_end(month_of(through))",
        "return through",
        (
            "core/publication/test_release.py::test_a_removed_user_is_out_of_mau_until_the_next_month",
            "core/erasure/test_requests.py::test_without_any_one_month_mau_changes_on_one_interval_of_at_most_60_days",
        ),
    ),
    Fault(
        "a-removal-reaches-mau-a-window-late",
        "dpdau_assets/core/tombstones.py",
        "& (self.effective_from <= day_number(window_end))",
        "& (self.effective_from < day_number(window_end))",
        (
            "core/publication/test_release.py::test_a_removed_user_is_out_of_mau_until_the_next_month",
            "core/erasure/test_requests.py::test_without_any_one_month_mau_changes_on_one_interval_of_at_most_60_days",
        ),
    ),
)

ERASURE_REQUESTS = (
    Fault(
        "a-removal-is-refused-for-a-day-that-can-hold-nothing",
        "dpdau_assets/core/events.py",
        'row.op == "-" or reading.is_not_too_early(reading.day)',
        "reading.is_not_too_early(reading.day)",
        (
            "core/test_events.py::test_a_removal_is_never_bad_for_a_day_that_can_hold_nothing",
            "core/erasure/test_removals.py",
            "resources/reading/test_engine_duckdb.py::test_the_sql_says_of_every_field_at_its_edges_what_the_reference_says",
        ),
    ),
    Fault(
        "a-removal-of-long-ago-is-read-by-the-clocks-of-today",
        "resources/reading/engine_duckdb.py",
        "day if second is None else day_of_second(second, self._limits.zone) or day",
        "day",
        (
            "resources/reading/test_engine_duckdb.py::test_a_removal_of_long_ago_is_of_the_day_that_the_zones_clocks_had_then",
        ),
    ),
    Fault(
        "a-removal-without-a-day-ends-a-day-early",
        "dpdau_assets/core/events.py",
        "listed[-1] if listed else reading.day or limits.last",
        "listed[-1] if listed else reading.day or limits.last - timedelta(days=1)",
        (
            "core/test_events.py::test_a_removal_reaches_its_own_day_or_the_last_listed_one_or_tomorrow",
            "core/erasure/test_requests.py::test_an_erasure_without_a_day_reaches_the_events_that_tomorrow_may_have",
        ),
    ),
    Fault(
        "days-that-can-hold-nothing-get-tombstones",
        "resources/ledger_sql/erasures.py",
        "            for day in removal.taken\n",
        "            for day in removal.days or (removal.through,)\n",
        (
            "conformance/test_erasure_ledger.py::"
            "test_days_that_are_passed_over_are_part_of_the_request_and_have_no_tombstone",
        ),
    ),
    Fault(
        "a-request-that-has-nothing-to-erase-waits-for-ever",
        "resources/ledger_sql/erasures.py",
        '[erasure for erasure in ids if erasure not in identities], "applied"',
        '[], "applied"',
        (
            "conformance/test_erasure_ledger.py::"
            "test_a_removal_without_keys_is_applied_once_it_is_in_force_and_the_same_as_no_other",
            "core/erasure/test_requests.py::"
            "test_a_request_without_a_day_that_can_hold_something_is_applied_at_once_and_verified_like_any_other",
        ),
    ),
    Fault(
        "a-duplicate-moves-the-first-day-in-force",
        "resources/ledger_sql/erasures.py",
        "min(soonest, since.get(identities.get(erasure), soonest))",
        "soonest",
        (
            "conformance/test_erasure_ledger.py::"
            "test_a_duplicate_keeps_the_first_day_in_force_of_the_same_person_and_days",
        ),
    ),
    Fault(
        "two-rows-for-one-person-have-one-receipt",
        "resources/ledger_sql/erasures.py",
        "names.popleft() if names else None",
        "names[0] if names else None",
        (
            "conformance/test_erasure_ledger.py::"
            "test_the_same_removal_twice_at_once_has_two_receipts_and_asking_again_has_the_same_two",
        ),
    ),
    Fault(
        "a-reference-outlives-a-cancelled-request",
        "resources/ledger_sql/erasures.py",
        "            destroy_all(connection, self._database.keyring, REFERENCE, without_tombstones(connection))\n",
        "",
        ("conformance/test_erasure_ledger.py::test_a_reference_is_destroyed_with_the_requests_last_tombstone",),
    ),
    Fault(
        "a-reference-outlives-its-salt-epochs",
        "resources/ledger_sql/salts.py",
        "            destroy_all(connection, self._keyring, REFERENCE, without_tombstones(connection))\n",
        "",
        ("conformance/test_erasure_ledger.py::test_a_reference_is_destroyed_with_the_requests_last_tombstone",),
    ),
    Fault(
        "a-reference-may-be-somebodys-id",
        "resources/reading/erasure_files.py",
        "if event.reference in people}",
        "if event.reference is people}",
        (
            "resources/reading/test_erasure_files.py::test_a_reference_that_is_an_id_of_the_file_refuses_it_without_quoting_the_id",
        ),
    ),
    Fault(
        "the-guard-is-ignored",
        "dpdau_assets/core/erasure/requests.py",
        "len({event.user_id for event in asked}) > guard_limit(store.settings, store.accountant)",
        "len({event.user_id for event in asked}) > math.inf",
        (
            "core/erasure/test_requests.py::test_the_guard_parks_a_batch_of_more_people_than_its_share_of_the_last_published_mau",
        ),
    ),
    Fault(
        "a-removal-is-in-force-from-a-mau-day-that-is-committed",
        "resources/ledger_sql/erasures.py",
        "date.fromisoformat(last) + timedelta(days=1)",
        "date.fromisoformat(last)",
        (
            "conformance/test_erasure_ledger.py::test_the_same_removal_again_is_the_same_request_and_keeps_its_first_day_in_force",
            "core/publication/test_release.py::test_a_removed_user_is_out_of_mau_until_the_next_month",
            "core/erasure/test_requests.py::test_without_any_one_month_mau_changes_on_one_interval_of_at_most_60_days",
        ),
    ),
    Fault(
        "applying-one-removal-marks-all-as-applied",
        "resources/ledger_sql/erasures.py",
        'where(table.c.state == "received", table.c.watermark <= watermark)',
        'where(table.c.state == "received")',
        ("conformance/test_erasure_ledger.py::test_applying_moves_only_what_its_watermark_holds",),
    ),
    Fault(
        "a-removal-that-is-being-applied-can-be-cancelled",
        "resources/ledger_sql/erasures.py",
        "row.watermark <= begun)",
        "row.watermark < begun)",
        (
            "core/erasure/test_requests.py::test_a_request_whose_application_was_cut_short_can_no_longer_be_cancelled",
            "conformance/test_erasure_ledger.py::test_what_is_being_applied_cannot_be_cancelled_and_none_of_a_batch_is",
        ),
    ),
)

RECEIPTS = (
    Fault(
        "the-reference-of-a-receipt-can-be-exchanged",
        "dpdau_assets/core/erasure/receipts.py",
        'if document.get("reference") is not None and not _is_called(document, body):',
        'if document.get("reference") is not None and "reference_opening" not in document:',
        (
            "core/erasure/test_receipts.py::test_a_receipt_is_bound_to_its_reference_and_whoever_exchanges_it_is_found_out",
        ),
    ),
    Fault(
        "the-inspection-does-not-ask-the-late-store",
        "dpdau_assets/core/erasure/inspection.py",
        'return state.activity if place.store == "activity" else state.late',
        "return state.activity",
        ("core/erasure/test_receipts.py::test_a_late_event_of_hers_is_found_by_its_store_and_by_its_bytes",),
    ),
    Fault(
        "the-inspection-does-not-ask-sketches",
        "dpdau_assets/core/erasure/inspection.py",
        "return _present_in_sketch(place, wanted, state)",
        "return []",
        (
            "core/erasure/test_receipts.py::test_a_planted_survivor_is_named_and_the_receipt_is_not_verified",
            "core/budget/test_sketch_choice.py::test_a_sketch_of_what_state_was_is_a_survivor_of_everyone_who_was_erased_from_it",
        ),
    ),
    Fault(
        "an-archive-is-vouched-for-unopened",
        "resources/storage/file_inventory.py",
        "                raise _closed(file.name, str(kind))\n",
        "                pass\n",
        ("core/erasure/test_receipts.py::test_a_file_that_may_pack_its_bytes_is_named_and_nobody_is_vouched_for",),
    ),
    Fault(
        "compressed-parquet-is-vouched-for",
        "resources/storage/file_inventory.py",
        'each.compression == "UNCOMPRESSED" and {*each.encodings} <= _AS_IT_IS',
        "{*each.encodings} <= _AS_IT_IS",
        ("resources/storage/test_file_inventory.py::test_parquet_that_compresses_or_encodes_its_values_is_refused",),
    ),
    Fault(
        "the-byte-scan-misses-keys-that-lie-across-chunks",
        "dpdau_assets/core/erasure/byte_scan.py",
        "            self._mark(memoryview(tail + view[:_OVERLAP]), is_found)\n",
        "",
        ("core/erasure/test_byte_scan.py",),
    ),
    Fault(
        "the-hash-of-a-key-in-a-theta-sketch-is-not-looked-for",
        "dpdau_assets/core/erasure/inspection.py",
        "        self._add_hashes()\n",
        "",
        ("core/budget/test_sketch_choice.py::test_the_hash_of_an_erased_user_in_a_stray_theta_sketch_is_found",),
    ),
    Fault(
        "a-receipt-is-verified-whatever-is-left",
        "dpdau_assets/core/erasure/receipts.py",
        '"verified": inspected and not left,',
        '"verified": inspected,',
        ("core/erasure/test_receipts.py::test_a_planted_survivor_is_named_and_the_receipt_is_not_verified",),
    ),
    Fault(
        "a-request-becomes-verified-whatever-is-left",
        "dpdau_assets/core/erasure/receipts.py",
        "clean = [erasure.receipt for erasure in erasures if not inspection.survivors[erasure.receipt]]",
        "clean = [erasure.receipt for erasure in erasures]",
        (
            "core/erasure/test_receipts.py::test_a_planted_survivor_is_named_and_the_receipt_is_not_verified",
            "core/erasure/test_retention.py::test_no_key_is_shredded_while_something_is_left_of_an_erased_person",
        ),
    ),
    Fault(
        "a-survivor-is-forgotten-with-the-key-it-was-found-by",
        "dpdau_assets/core/erasure/receipts.py",
        "    if not partly:\n",
        "    if partly or not partly:\n",
        ("core/erasure/test_retention.py::test_what_a_receipt_has_named_stays_named_when_its_key_is_shredded",),
    ),
)

RELEASE = (
    Fault(
        "only-the-published-day-is-sealed-and-not-its-window",
        "dpdau_assets/core/publication/release.py",
        "days = {day for key in estimators for day in window(key.day, key.window_days)}",
        "days = {key.day for key in estimators}",
        (
            "core/publication/test_release.py::test_what_comes_for_a_published_day_is_late_and_changes_no_later_number",
            "core/publication/test_release.py::test_a_release_out_of_order_seals_no_day_and_charges_nothing",
            "core/erasure/test_requests.py::test_without_any_one_month_mau_changes_on_one_interval_of_at_most_60_days",
        ),
    ),
    Fault(
        "days-are-sealed-after-their-statistic-is-read",
        "dpdau_assets/core/publication/release.py",
        "        store.accountant.seal(days)\n"
        "        watermark = store.erasures.ledger.applied()\n"
        "        statistics: dict[ReleaseKey, Counted] = {}\n"
        "        for estimator in dict.fromkeys(estimators.values()):\n"
        "            alike = [key for key in estimators if estimators[key] == estimator]\n"
        "            statistics |= {key: Counted(count, estimator) for key, count in "
        "read_alike(alike, estimator, store)}\n"
        "        return statistics, watermark\n",
        "        watermark = store.erasures.ledger.applied()\n"
        "        statistics: dict[ReleaseKey, Counted] = {}\n"
        "        for estimator in dict.fromkeys(estimators.values()):\n"
        "            alike = [key for key in estimators if estimators[key] == estimator]\n"
        "            statistics |= {key: Counted(count, estimator) for key, count in "
        "read_alike(alike, estimator, store)}\n"
        "    store.accountant.seal(days)\n"
        "    return statistics, watermark\n",
        (
            "core/publication/test_release.py::test_who_comes_before_a_day_is_sealed_is_in_its_number_and_who_comes_after_it_is_late",
        ),
    ),
    Fault(
        "a-removal-since-the-statistic-was-read-is-overlooked",
        "dpdau_assets/core/publication/release.py",
        "if ledger.removals_recorded() != watermark or not _is_whole(",
        "if not _is_whole(",
        (
            "core/publication/test_release.py::test_a_removal_recorded_while_the_statistic_is_read_is_in_the_number",
            "core/publication/test_restatement.py::test_a_removal_recorded_while_the_month_is_read_is_in_all_of_its_numbers",
            "core/publication/test_publish_in_order.py::test_a_removal_that_is_recorded_within_a_list_is_in_every_number_that_comes_after_it",
        ),
    ),
    Fault(
        "a-number-is-drawn-from-what-was-counted-by-other-parameters",
        "dpdau_assets/core/publication/release.py",
        "    if estimator_of(planned.run) != counted.estimator:\n        raise _Outdated\n",
        "",
        ("core/budget/test_sketch_choice.py",),
    ),
    Fault(
        "of-a-list-the-refused-numbers-days-are-sealed-too",
        "dpdau_assets/core/publication/release.py",
        "        try:\n            statistics, watermark = read_statistics(",
        "        store.accountant.seal({step.day for step in steps if step.day and step.kind != RESTATEMENT})\n"
        "        try:\n            statistics, watermark = read_statistics(",
        (
            "core/publication/test_publish_in_order.py::test_what_comes_before_a_refusal_is_out_and_no_day_that_only_the_refused_reads_is_sealed",
        ),
    ),
    Fault(
        "removals-that-come-faster-than-a-list-is-read-hold-it-up",
        "dpdau_assets/core/publication/release.py",
        "at_once = min(most, 2 * at_once) if done else max(1, len(planned) // 2)",
        "at_once = most",
        (
            "core/publication/test_publish_in_order.py::test_removals_that_come_faster_than_a_list_is_read_hold_up_no_number",
        ),
    ),
    Fault(
        "a-day-whose-declaration-is-taken-back-is-sealed-and-published",
        "dpdau_assets/core/publication/release.py",
        "_up_to_undeclared(estimators, declared() if declared else None)",
        "_up_to_undeclared(estimators, None)",
        (
            "core/publication/test_publish_in_order.py::test_a_list_ends_before_a_day_whose_declaration_is_taken_back_before_it_is_sealed",
        ),
    ),
    Fault(
        "windows-that-removals-are-in-force-for-are-counted-with-those-before-them",
        "dpdau_assets/core/state/windows.py",
        "groupby(of_epoch, key=removed.in_force)",
        "groupby(of_epoch, key=bool)",
        (
            "core/state/test_windows.py::test_windows_counted_together_are_each_counted_alone_across_epochs_and_removals",
        ),
    ),
    Fault(
        "a-word-that-came-before-the-block-is-forgotten",
        "dpdau_assets/core/sketches/sliding.py",
        "    is_last = days > block_days\n",
        "    is_last = days > block_days + window_days\n",
        (
            "core/sketches/test_sliding.py::test_each_window_has_as_many_words_as_the_union_of_its_days_however_few_are_held_at_once",
        ),
    ),
    Fault(
        "noise-is-added-anew-whenever-a-stored-number-is-asked-for",
        "dpdau_assets/core/publication/release.py",
        "        return PlannedStep(step, [release])\n",
        "        again = release.noisy_value + store.noise.gaussian(9)[0]\n"
        '        return PlannedStep(step, [type(release)(**{**vars(release), "noisy_value": again})])\n',
        ("core/publication/test_release.py::test_asking_two_hundred_times_gives_one_number_and_one_ledger_row",),
    ),
    Fault(
        "the-months-shared-noise-is-drawn-anew-for-each-number",
        "dpdau_assets/core/publication/release.py",
        "        (in_common,) = noise.gaussian(shared.sigma_month)\n"
        "        ledger.keep_shared_noise(name, in_common)\n"
        "    (fresh,)",
        "        ledger.keep_shared_noise(name, noise.gaussian(shared.sigma_month)[0])\n"
        "    (in_common,) = noise.gaussian(shared.sigma_month)\n"
        "    (fresh,)",
        (
            "properties/audit/test_audit.py::test_a_months_numbers_are_off_by_the_noise_that_was_priced_and_correlated_as_the_contract_says",
        ),
    ),
    Fault(
        "the-exact-count-is-stored",
        "dpdau_assets/core/publication/release.py",
        "release = fact(key, planned.run, noisy_value, ledger, settings, noise)",
        "release = fact(key, planned.run, noisy_value and float(counted.statistic), ledger, settings, noise)",
        ("core/publication/test_release.py::test_two_stores_with_the_same_events_publish_different_numbers",),
    ),
    Fault(
        "the-shared-noise-outlives-its-month",
        "dpdau_assets/core/publication/release.py",
        "if month in ledger.restated() or len(",
        "if len(",
        (
            "core/publication/test_restatement.py::test_a_restated_month_is_closed_and_its_shared_noise_destroyed",
            "core/publication/test_release.py::test_the_shared_noise_is_destroyed_with_the_months_last_number",
        ),
    ),
    Fault(
        "the-real-time-of-publication-is-shown",
        "dpdau_assets/core/publication/release.py",
        "    day = due_on(settings, key.day)\n",
        "    day = datetime.now(ZoneInfo(settings.timezone)).date()\n",
        ("dagster/test_publish_due.py::test_after_downtime_one_run_publishes_in_order_under_the_slots_of_each_day",),
    ),
)

RESTATEMENT = (
    Fault(
        "a-restatement-takes-the-noise-that-the-day-had",
        "dpdau_assets/core/publication/release.py",
        "    (fresh,) = noise.gaussian(shared.sigma_day)\n",
        "    drawn = str((id(noise), name, len(ledger.numbers(name)) % max(28, shared.releases // 2)))\n"
        "    (fresh,) = _draw_shared.__dict__.setdefault(drawn, noise.gaussian(shared.sigma_day))\n",
        (
            "core/publication/test_restatement.py::test_a_month_in_which_nothing_changed_is_restated_all_the_same",
            "properties/audit/test_audit.py::test_a_months_numbers_are_off_by_the_noise_that_was_priced_and_correlated_as_the_contract_says",
            "properties/audit/test_audit.py::test_what_a_restatement_and_the_first_numbers_tell_together_is_within_the_months_charge",
        ),
    ),
    Fault(
        "a-restatement-leaves-late-events-out",
        "dpdau_assets/core/publication/release.py",
        "with_late=key.revision > 0)",
        "with_late=key.revision > 1)",
        ("core/publication/test_restatement.py::test_the_restated_numbers_are_without_the_erased_and_with_the_late",),
    ),
    Fault(
        "a-month-is-restated-before-its-day",
        "dpdau_assets/core/publication/admission.py",
        "if due_on(settings, last) < due:",
        "if due_on(settings, last) + timedelta(days=1) < due:",
        ("core/publication/test_restatement.py::test_a_month_is_not_restated_before_publication_has_come_to_its_day",),
    ),
    Fault(
        "a-restated-month-stays-open",
        "dpdau_assets/core/budget/planning.py",
        "month_of(key.day) in ledger.restated() and not key.revision",
        "key.day in ledger.restated() and not key.revision",
        ("core/publication/test_restatement.py::test_a_restated_month_is_closed_and_its_shared_noise_destroyed",),
    ),
    Fault(
        "a-restatement-misses-a-number-that-came-meanwhile",
        "dpdau_assets/core/publication/release.py",
        "if ledger.removals_recorded() != watermark or not _is_whole(statistics, ledger):",
        "if ledger.removals_recorded() != watermark:",
        (
            "core/publication/test_restatement.py::test_a_first_number_that_comes_while_the_month_is_restated_is_restated_too",
        ),
    ),
)

LEDGER = (
    Fault(
        "writers-begin-deferred",
        "resources/ledger_sql/database.py",
        'else "BEGIN IMMEDIATE"',
        'else "BEGIN DEFERRED"',
        ("conformance/test_ledger.py::test_processes_that_race_for_a_budget_never_overspend_it",),
    ),
    Fault(
        "writers-in-postgresql-take-no-lock",
        "resources/ledger_sql/database.py",
        "SELECT pg_advisory_xact_lock(hashtext('dpdau ledger'), hashtext(current_schema()))",
        "SELECT 1",
        (
            "conformance/test_ledger.py::test_processes_that_race_for_a_budget_never_overspend_it",
            "properties/test_races.py",
        ),
    ),
    Fault(
        "the-lock-of-a-data-directory-is-not-taken",
        "resources/storage/file_lock.py",
        "        with self._opened():\n            yield\n",
        "        yield\n",
        (
            "resources/storage/test_file_lock.py::test_another_process_gets_the_lock_once_its_holder_has_let_go_and_not_before",
        ),
    ),
    Fault(
        "the-chain-leaves-the-last-column-out",
        "resources/ledger_sql/chain.py",
        "[list(row) for row in rows]",
        "[list(row)[:-1] for row in rows]",
        ("conformance/test_tampering.py::test_a_changed_value_is_found",),
    ),
    Fault(
        "verifying-believes-what-is-said-of-overrides",
        "resources/ledger_sql/chain.py",
        "hashed = _hash(key, before, entry.kind, covered)",
        'hashed = entry.hash if entry.kind == "overrides" else _hash(key, before, entry.kind, covered)',
        ("conformance/test_tampering.py::test_a_changed_value_is_found",),
    ),
    Fault(
        "verifying-does-not-look-at-tombstones",
        "resources/ledger_sql/verification.py",
        '        ("A tombstone", _tombstones),\n',
        "",
        (
            "conformance/test_tampering.py::test_tombstones_that_are_said_to_be_shredded_with_their_epoch_are_found_to_be_missing",
            "conformance/test_tampering.py::test_a_changed_value_is_found",
        ),
    ),
    Fault(
        "rows-that-nobody-appended-are-believed",
        "resources/ledger_sql/chain.py",
        "        if left:\n",
        "        if False:\n",
        ("conformance/test_tampering.py::test_a_row_that_nobody_appended_is_found",),
    ),
    Fault(
        "what-is-deleted-is-not-overwritten",
        "resources/ledger_sql/database.py",
        '"secure_delete = ON"',
        '"secure_delete = OFF"',
        (
            "core/publication/test_release.py::test_destroyed_noise_is_in_no_byte_of_the_ledger",
            "core/publication/test_release.py::test_after_a_removal_is_applied_only_its_tombstone_holds_the_key",
            "conformance/test_erasure_ledger.py::test_a_cancelled_request_leaves_no_tombstone_and_can_be_made_again",
        ),
    ),
    Fault(
        "what-is-deleted-stays-in-the-write-ahead-log",
        "resources/ledger_sql/database.py",
        '["PRAGMA wal_checkpoint(TRUNCATE)"]',
        '["PRAGMA wal_checkpoint(PASSIVE)"]',
        ("core/publication/test_release.py::test_destroyed_noise_is_in_no_byte_of_the_ledger",),
    ),
    Fault(
        "a-number-without-its-charge-is-not-noticed",
        "dpdau_assets/core/budget/verification.py",
        "return [\n            *_unpaid(ledger),\n            *_over_cap(settings, ledger),",
        "return [\n            *_over_cap(settings, ledger),",
        ("core/budget/test_verification.py::test_a_month_that_a_number_reads_and_was_never_charged_for_it_is_found",),
    ),
)

SALTS = (
    Fault(
        "the-boundary-of-salt-epochs-is-a-day-off",
        "dpdau_assets/core/dates.py",
        "return day_number(day) // rotation_days",
        "return (day_number(day) + 1) // rotation_days",
        ("core/publication/test_ingest.py", "core/state/test_activity.py"),
    ),
    Fault(
        "a-day-is-not-keyed-for-the-last-window-that-reaches-it",
        "dpdau_assets/core/dates.py",
        "last = day + timedelta(days=longest_window - 1)",
        "last = day + timedelta(days=longest_window - 2)",
        (
            "core/publication/test_ingest.py::test_each_day_is_keyed_under_every_epoch_whose_windows_reach_it",
            "core/state/test_activity.py::test_a_day_is_keyed_under_each_epoch_whose_windows_reach_it",
            "eval/test_references.py::test_state_equals_the_reference_on_every_day_and_in_every_window",
        ),
    ),
    Fault(
        "a-shredded-epoch-gets-a-new-key",
        "resources/ledger_sql/salts.py",
        "if gone is not None and epochs[0] <= gone:",
        "if gone is not None and epochs[0] < gone:",
        (
            "conformance/test_erasure_ledger.py::test_shredding_takes_an_epochs_tombstones_and_no_key_is_ever_made_for_it_again",
        ),
    ),
)

INGEST = (
    Fault(
        "the-quarantine-keeps-the-name-of-whoever-is-erased",
        "dpdau_assets/core/erasure/requests.py",
        "    store.events.quarantine.forget(named)  # first",
        "    # first",
        (
            "core/erasure/test_requests.py::test_whom_a_request_names_is_gone_from_the_quarantine_also_while_it_is_parked",
        ),
    ),
    Fault(
        "a-bad-row-brings-the-name-of-whoever-is-erased-back",
        "dpdau_assets/core/publication/ingest.py",
        "replace(row, file=NAME_LEFT_OUT) if is_named(row.file) else row",
        "row",
        (
            "core/publication/test_ingest.py::test_a_bad_row_of_a_file_named_after_somebody_who_is_erased_by_it_is_kept_without_the_name",
        ),
    ),
    Fault(
        "who-rewrites-the-quarantine-does-not-wait-for-the-other",
        "resources/storage/quarantine_files.py",
        "        with self._lock.held():\n            yield\n",
        "        yield\n",
        (
            "resources/storage/test_inbox_files.py::test_two_requests_that_rewrite_the_quarantine_at_once_leave_neither_of_them",
        ),
    ),
    Fault(
        "the-quarantine-says-how-many-came-too-late",
        "dpdau_assets/core/state/folding.py",
        'f"Dropped: some users {reason}."',
        'f"Dropped: {len(arrived.keys)} users {reason}."',
        (
            "core/publication/test_restatement.py::test_that_some_came_after_the_restatement_stands_in_the_quarantine_and_not_how_many",
        ),
    ),
    Fault(
        "an-op-that-is-neither-plus-nor-minus-is-taken",
        "resources/reading/event_sql.py",
        "events.BAD_OP: \"op NOT IN ('+', '-')\"",
        "events.BAD_OP: \"op NOT IN ('+', '-', 'x', '')\"",
        (
            "core/publication/test_ingest.py::test_bad_rows_go_to_the_quarantine_and_in_part_stop_nothing",
            "resources/reading/test_engine_duckdb.py::test_the_sql_says_of_every_field_at_its_edges_what_the_reference_says",
        ),
    ),
    Fault(
        "an-input-without-a-valid-row-is-taken-for-an-empty-one",
        "dpdau_assets/core/publication/ingest.py",
        "    if rejections.total and not scan.accepted:\n",
        "    if rejections.total and not scan.accepted and share < 0:\n",
        ("core/publication/test_ingest.py::test_an_input_without_one_valid_row_is_bad_input_and_nothing_is_taken",),
    ),
    Fault(
        "bad-rows-are-dropped-however-many-there-are",
        "dpdau_assets/core/publication/ingest.py",
        "    if share > limit and not partial:\n",
        "    if share > 1 and not partial:\n",
        (
            "core/publication/test_ingest.py::test_more_bad_rows_than_the_share_admits_are_refused_and_no_removal_is_taken_either",
        ),
    ),
    Fault(
        "an-archive-that-begins-earlier-is-refused",
        "dpdau_assets/core/publication/ingest.py",
        "rejections.total - rejections.by_reason().get(TOO_EARLY, 0)",
        "rejections.total",
        (
            "core/publication/test_ingest.py::test_rows_before_start_date_do_not_count_in_the_share_and_rows_after_tomorrow_do",
        ),
    ),
    Fault(
        "a-quote-inside-of-a-plain-field-is-text",
        "resources/reading/event_csv.py",
        "        if text and not rule.fullmatch(text):\n",
        "        if grammar.escape and text and not rule.fullmatch(text):\n",
        (
            "resources/reading/test_event_csv.py::test_a_file_whose_quotes_do_not_say_where_a_row_ends_is_refused_with_the_line",
        ),
    ),
    Fault(
        "the-rest-of-an-id-that-a-line-break-has-cut-is-an-id",
        "resources/reading/event_csv.py",
        "            trusted = _broken(trusted) if columns.cuts_after(before, trusted) else trusted\n",
        "",
        (
            "resources/reading/test_event_csv.py::test_an_id_beside_a_line_without_a_comma_may_be_a_piece_of_one_and_is_nobodys",
        ),
    ),
    Fault(
        "text-that-was-a-note-erases-somebody",
        "resources/reading/event_reading.py",
        "                self._doubt_removals()\n",
        "",
        ("resources/reading/test_event_csv.py::test_a_removal_near_a_row_that_fell_to_pieces_erases_nobody",),
    ),
    Fault(
        "a-file-that-can-be-read-in-two-ways-is-read-in-one",
        "resources/reading/event_csv.py",
        "    if differ and (removes or broken or not broken_so):\n",
        "    if differ and broken and not broken_so:\n",
        (
            "resources/reading/test_event_csv.py::test_a_file_that_is_sound_with_and_without_escapes_and_says_two_things_is_refused",
        ),
    ),
    Fault(
        "a-field-has-swallowed-rows-that-nobody-counts",
        "resources/reading/event_csv.py",
        "            yield from ((line, None) for line in columns.lines_of(record))\n",
        "            yield record.first, None\n",
        ("resources/reading/test_event_csv.py::test_every_line_of_a_broken_row_is_counted",),
    ),
    Fault(
        "what-landed-and-was-refused-makes-its-day-complete",
        "dpdau_assets/core/publication/completeness.py",
        "        elsewhere = ingest(files, store).elsewhere if files else {}\n",
        "        complete(day, store, fingerprint)\n"
        "        elsewhere = ingest(files, store).elsewhere if files else {}\n",
        (
            "dagster/test_inbox_sensor.py::"
            "test_a_folder_with_too_many_bad_rows_makes_no_day_complete_and_nothing_of_it_is_taken",
        ),
    ),
    Fault(
        "a-row-of-a-day-to-come-is-taken",
        "dpdau_assets/core/events.py",
        "return day is None or day <= self.limits.last",
        "return True",
        ("core/test_events.py",),
    ),
    Fault(
        "a-removal-with-unreadable-days-becomes-one-of-everything",
        "dpdau_assets/core/events.py",
        "if isinstance(days, list) else ()",
        "if isinstance(days, list) else None",
        ("core/test_events.py",),
    ),
    Fault(
        "a-batch-is-there-before-its-removals",
        "dpdau_assets/core/publication/ingest.py",
        "    requested = request(asked, store)\n"
        "    keyed = keyed_days(scan, store.state.salts, store.settings, progress)\n"
        "    batch = store.events.inbox.append(made_ahead(keyed, lambda made: made.keys.nbytes, _KEYED_AHEAD_BYTES))\n",
        "    keyed = keyed_days(scan, store.state.salts, store.settings, progress)\n"
        "    batch = store.events.inbox.append(made_ahead(keyed, lambda made: made.keys.nbytes, _KEYED_AHEAD_BYTES))\n"
        "    requested = request(asked, store)\n",
        (
            "core/publication/test_ingest.py::test_a_removal_is_recorded_in_every_epoch_it_reaches_before_the_batch_is_there",
        ),
    ),
    Fault(
        "a-batch-is-acknowledged-before-it-is-on-disk",
        "resources/storage/durable.py",
        "        file.flush()\n        os.fsync(file.fileno())\n        temporary.replace(folder / name)\n",
        "        file.flush()\n        temporary.replace(folder / name)\n",
        ("resources/storage/test_inbox_files.py::test_every_file_and_its_folder_are_synced_before_the_call_returns",),
    ),
    Fault(
        "the-same-file-twice-is-two-batches",
        "resources/storage/inbox_files.py",
        'return f"{content.hexdigest()[:32]}.parquet" if epochs else None',
        "return f\"{content.hexdigest()[:16]}{__import__('secrets').token_hex(8)}.parquet\" if epochs else None",
        (
            "resources/storage/test_inbox_files.py::test_the_same_sets_are_the_same_batch_and_others_are_not",
            "core/publication/test_ingest.py::test_all_days_of_all_epochs_are_one_batch_and_twice_is_the_same_batch",
        ),
    ),
    Fault(
        "who-stands-in-two-batches-counts-twice",
        "resources/storage/inbox_files.py",
        "return keys[0] if len(keys) == 1 else unite(keys)",
        "return keys[0] if len(keys) == 1 else np.sort(np.concatenate(keys))",
        ("resources/storage/test_inbox_files.py::test_batches_read_together_are_united_by_day_and_epoch",),
    ),
)

SKETCHES = (
    Fault(
        "a-theta-estimate-forgets-the-sample",
        "dpdau_assets/core/sketches/theta.py",
        "return noisy / float(self.theta0)",
        "return noisy / float(self.theta0) ** 2",
        ("core/sketches/test_sketch_estimates.py",),
    ),
    Fault(
        "a-larger-sample-is-counted-as-a-smaller-one",
        "dpdau_assets/core/sketches/theta.py",
        "below = int(np.searchsorted(sketch.hashes, np.uint64(_threshold(self.theta0))))",
        "below = len(sketch.hashes)",
        ("conformance/test_sketch.py::test_a_sketch_of_a_larger_sample_is_counted_as_one_of_a_smaller_sample",),
    ),
    Fault(
        "kmv-keeps-one-key-too-few",
        "dpdau_assets/core/sketches/kmv.py",
        'keys[: int(header.parameters["k"])].copy()',
        'keys[: int(header.parameters["k"]) - 1].copy()',
        ("conformance/test_sketch.py::test_a_statistic_is_what_its_definition_says_of_all_users",),
    ),
    Fault(
        "a-full-kmv-sketch-just-loses-a-removed-key",
        "dpdau_assets/core/sketches/kmv.py",
        "return None if is_full and len(left) < len(self.smallest) else",
        "return None if is_full and len(left) > len(self.smallest) else",
        ("conformance/test_sketch.py",),
    ),
    Fault(
        "the-level-of-hll-is-one-off",
        "dpdau_assets/core/sketches/hllpp.py",
        "np.flatnonzero(sketch.ranks >= self.level)",
        "np.flatnonzero(sketch.ranks > self.level)",
        ("conformance/test_sketch.py::test_a_statistic_is_what_its_definition_says_of_all_users",),
    ),
    Fault(
        "an-interval-of-registers-takes-the-noise-for-one-without-steps",
        "dpdau_assets/core/sketches/hllpp.py",
        "Z * math.sqrt(self._variance(users))) + noise.step / 2",
        "Z * math.sqrt(self._variance(users)))",
        (_COVERED,),
    ),
    Fault(
        "an-interval-of-a-sample-takes-the-noise-for-one-without-steps",
        "dpdau_assets/core/sketches/sampling.py",
        "least, most = noisy - noise.step / 2, noisy + noise.step / 2",
        "least = most = noisy",
        (_COVERED,),
    ),
    Fault(
        "a-sketch-stays-when-its-state-changes",
        "dpdau_assets/core/state/folding.py",
        "        store.state.sketches.discard(day_set.day, day_set.epoch)\n",
        "",
        ("core/budget/test_sketch_choice.py::test_a_sketch_of_what_state_was_is_gone_before_the_state_is_another",),
    ),
)

DAY_SKETCH = (
    Fault(
        "a-sketch-of-another-state-holds-nobody",
        "dpdau_assets/core/state/day_sketch.py",
        "        return wanted\n    left = sketch.traces(wanted)\n",
        "        return EMPTY\n    left = sketch.traces(wanted)\n",
        (
            "core/budget/test_sketch_choice.py",
            "core/erasure/test_receipts.py::test_the_inspection_reads_what_stands_there_now",
        ),
    ),
    Fault(
        "a-rebuild-claims-a-mark-that-came-while-it-ran",
        "dpdau_assets/core/state/day_sketch.py",
        "if mark and store.erasures.ledger.applied() >= store.state.rebuilds.marked():",
        "if mark:",
        (
            "core/erasure/test_requests.py::test_a_day_that_is_built_claims_no_mark_of_a_request_that_is_not_applied_yet",
        ),
    ),
    Fault(
        "who-is-held-out-stays-in-a-sketch-that-cannot-lose-her",
        "dpdau_assets/core/state/day_sketch.py",
        "kept = subtract(_state(day, epoch, store.state), gone)",
        "kept = _state(day, epoch, store.state)",
        (
            "core/budget/test_sketch_choice.py::"
            "test_who_is_held_out_of_a_window_is_in_no_sketch_of_it_also_in_a_kind_that_cannot_lose_her",
        ),
    ),
)

CHECKS = (
    Fault(
        "a-refused-number-passes-its-check",
        "dpdau_assets/core/budget/within_budget.py",
        "return self.refusal is None and all(",
        "return all(",
        (
            "core/budget/test_within_budget.py::test_a_refused_number_says_why_in_which_month_and_which_day_fits",
            "dagster/test_within_budget.py::test_a_refused_number_fails_its_check_with_the_reason_and_its_run",
        ),
    ),
    Fault(
        "a-refusal-is-told-and-not-raised",
        "dpdau_assets/orchestration/publishing.py",
        "        yield from recorder.reported(records, newest)\n        if error:\n            raise error\n",
        "        yield from recorder.reported(records, newest)\n",
        ("dagster/test_within_budget.py::test_a_run_of_steps_keeps_the_check_and_raises_the_refusal_itself",),
    ),
    Fault(
        "only-the-next-day-is-tried",
        "dpdau_assets/core/budget/within_budget.py",
        "return [following, *sorted(turn for turn in turns if turn > following)]",
        "return [following]",
        ("core/budget/test_within_budget.py",),
    ),
    Fault(
        "a-replay-that-waits-is-somebody-who-is-left",
        "dpdau_assets/core/erasure/inspection.py",
        "if survivor.file not in waiting or survivor.how != IN_SET",
        "if survivor.file or waiting",
        ("dagster/test_checks.py::test_who_is_pending_is_not_left_and_who_was_applied_and_is_still_there_is",),
    ),
    Fault(
        "the-check-of-the-erased-makes-the-key-of-receipts",
        "dpdau_assets/core/erasure/inspection.py",
        "_read_back(sought, _NO_KEY, store)",
        "_read_back(sought, store.state.salts.signing_key(), store)",
        ("dagster/test_checks.py::test_checks_write_nothing_while_batches_and_erasures_wait",),
    ),
    Fault(
        "the-check-of-restatements-always-passes",
        "dpdau_assets/core/reporting/checks.py",
        "    if missed:\n",
        "    if missed and not last:\n",
        ("dagster/test_checks.py::test_a_check_passes_and_fails_once_what_it_guards_is_broken",),
    ),
    Fault(
        "a-check-that-cannot-be-asked-passes",
        "dpdau_assets/core/reporting/checks.py",
        'return Verdict(False, f"It could not be asked',
        'return Verdict(True, f"It could not be asked',
        ("dagster/test_checks.py::test_a_check_that_cannot_be_asked_fails_and_says_why",),
    ),
    Fault(
        "a-ledger-that-does-not-hold-blocks-nothing",
        "dpdau_assets/core/reporting/checks.py",
        "_ledger_holds,\n        blocking=True,\n",
        "_ledger_holds,\n",
        ("dagster/test_checks.py::test_what_could_let_a_wrong_number_leave_or_data_stay_blocks",),
    ),
)

SENSORS = (
    Fault(
        "the-erasure-sensor-marks-no-day",
        "sensors/erasure.py",
        "            mark_touched(store)\n",
        "            pass\n",
        (
            "dagster/test_erasure_sensor.py::test_exactly_the_touched_days_turn_stale_and_are_fresh_again_after_the_runs_that_are_asked_for",
        ),
    ),
    Fault(
        "attempts-never-end",
        "sensors/attempts.py",
        'key = free_key(task, tries) or f"{task}/{today}"',
        'key = f"{task}/{len(tried.keys)}"',
        (
            "dagster/test_erasure_sensor.py::test_a_rebuild_that_failed_three_times_is_tried_once_a_day_and_the_check_says_so",
            "dagster/test_erasure_sensor.py::test_a_failing_verification_is_tried_a_few_times_and_then_once_a_day",
        ),
    ),
    Fault(
        "a-second-run-is-asked-for-while-one-is-under-way",
        "sensors/attempts.py",
        "return None if tried.under_way or key in tried.keys else key",
        "return None if key in tried.keys else key",
        ("dagster/test_erasure_sensor.py::test_no_second_run_is_asked_for_while_one_is_under_way",),
    ),
    Fault(
        "the-alert-sensors-cursor-goes-ahead-of-what-was-delivered",
        "sensors/alerts.py",
        "                    alerts.send(alert, once=_once(alert))\n                cursor = told\n",
        "                    cursor = told\n                    alerts.send(alert, once=_once(alert))\n",
        ("dagster/test_alert_sensor.py::test_what_could_not_be_kept_is_told_again_in_order_and_nothing_twice",),
    ),
    Fault(
        "the-inbox-sensor-builds-days-that-nobody-asked-for",
        "dpdau_assets/core/state/rebuilding.py",
        "if day in processed | complete and gone < day < today:",
        "if gone < day < today:",
        ("dagster/test_inbox_sensor.py::test_a_day_that_nobody_asked_for_is_not_built_whoever_was_active_on_it",),
    ),
)

SCHEDULES = (
    Fault(
        "a-day-is-due-a-day-before-its-grace-is-over",
        "dpdau_assets/core/publication/due.py",
        "timedelta(days=1 + settings.grace_days)",
        "timedelta(days=max(1, settings.grace_days))",
        ("core/publication/test_due.py",),
    ),
    Fault(
        "an-undeclared-day-is-published",
        "dpdau_assets/core/publication/due.py",
        "complete = list(_reading_only(declared, planned, store.settings))",
        "complete = list(planned)",
        ("core/publication/test_due.py",),
    ),
)

RETENTION = (
    Fault(
        "a-day-that-a-missing-number-reads-is-purged",
        "dpdau_assets/core/erasure/retention.py",
        "            require_nothing_missing(due, store.settings, store.accountant)\n",
        "",
        (
            "core/erasure/test_retention.py::test_nothing_is_purged_while_a_restatement_that_reads_it_is_missing",
            "core/erasure/test_retention.py::test_nothing_is_purged_while_a_number_that_reads_it_is_missing",
        ),
    ),
    Fault(
        "a-metric-that-lags-behind-holds-nothing-back",
        "dpdau_assets/core/erasure/retention.py",
        "due = min(last, default=",
        "due = max(last, default=",
        ("core/erasure/test_retention.py::test_a_mau_that_lags_behind_holds_its_window_back",),
    ),
    Fault(
        "the-last-window-that-reads-a-purged-day-is-not-waited-for",
        "dpdau_assets/core/erasure/retention.py",
        "last_window = due + timedelta(days=settings.mau_window_days - 1)",
        "last_window = due + timedelta(days=settings.mau_window_days - 2)",
        ("core/erasure/test_retention.py::test_nothing_is_purged_while_the_last_window_that_reads_it_is_missing",),
    ),
    Fault(
        "the-salt-epoch-that-still-serves-is-shredded",
        "dpdau_assets/core/erasure/retention.py",
        "last_epoch = epoch_of(gone + timedelta(days=1), rotation) - 1",
        "last_epoch = epoch_of(gone + timedelta(days=1), rotation)",
        (
            "core/erasure/test_retention.py::test_what_follows_is_published_as_if_nothing_had_been_purged",
            "core/erasure/test_retention.py::test_an_erasure_of_living_days_works_on_after_a_purge_and_shreds_with_its_epoch",
        ),
    ),
    Fault(
        "keys-are-shredded-while-something-is-left-of-somebody",
        "dpdau_assets/core/erasure/retention.py",
        'if store.erasures.ledger.erasures(("received", "applied")):',
        'if store.erasures.ledger.erasures(("received",)):',
        ("core/erasure/test_retention.py::test_no_key_is_shredded_while_something_is_left_of_an_erased_person",),
    ),
)

BACKUP = (
    Fault(
        "a-restore-closes-no-month",
        "dpdau_assets/core/publication/restoring.py",
        "for closed in maybe_published(lost, shown):\n",
        "for closed in maybe_published(lost[:0], shown):\n",
        ("core/publication/test_restoring.py::test_without_the_mart_all_that_may_be_out_is_charged_closed_and_sealed",),
    ),
    Fault(
        "a-restore-seals-no-day",
        "dpdau_assets/core/publication/restoring.py",
        "for day in window(key.day, key.window_days)} & live_days(state))",
        "for day in window(key.day, key.window_days)} & set())",
        ("core/publication/test_restoring.py::test_without_the_mart_all_that_may_be_out_is_charged_closed_and_sealed",),
    ),
    Fault(
        "a-restore-goes-on-with-noise-that-lost-numbers-share",
        "dpdau_assets/core/publication/restoring.py",
        "        ledger.destroy_shared_noise(run.name)\n",
        "",
        (
            "core/publication/test_restoring.py::test_what_a_closed_month_was_charged_is_never_free_again",
            "core/publication/test_restoring.py::test_without_the_mart_all_that_may_be_out_is_charged_closed_and_sealed",
        ),
    ),
    Fault(
        "a-number-is-taken-back-with-less-noise-than-is-charged",
        "dpdau_assets/core/publication/restoring.py",
        "    if not math.isclose(shown.half_width, half_width_95(run.mechanism, stream_day), rel_tol=1e-9):\n",
        "    if stream_day < 1:\n",
        (
            "core/publication/test_restoring.py::test_a_mart_that_shows_another_noise_than_is_configured_is_refused",
            "core/publication/test_restoring.py::test_a_number_of_a_stream_with_the_width_of_another_of_its_days_is_refused",
        ),
    ),
)

MART = (
    Fault(
        "what-is-shown-may-be-below-zero",
        "dpdau_assets/core/budget/numbers.py",
        "round(max(0.0, value), 3)",
        "round(value, 3)",
        (
            "properties/test_one_month.py::test_what_is_shown_of_a_number_is_never_below_zero_and_the_number_as_drawn_stays",
        ),
    ),
    Fault(
        "the-noisy-value-itself-is-clamped",
        "dpdau_assets/core/budget/numbers.py",
        "noisy_value=users,",
        "noisy_value=max(0.0, users),",
        (
            "properties/test_one_month.py",
            "core/publication/test_restoring.py::test_what_the_mart_shows_is_taken_back_to_the_last_digit",
        ),
    ),
    Fault(
        "a-number-of-predictable-noise-is-shown",
        "dpdau_assets/core/reporting/answers.py",
        "    if not release.private:\n",
        "    if not release.private and release.key.revision:\n",
        ("properties/test_one_month.py::test_a_number_from_predictable_noise_is_refused_by_the_mart",),
    ),
    Fault(
        "the-mart-is-written-in-place",
        "resources/published/mart_duckdb.py",
        "    write(temporary)\n",
        "    path.unlink(missing_ok=True)\n    write(path)\n    path.rename(temporary)\n",
        ("properties/test_one_month.py::test_the_mart_is_replaced_while_a_reader_has_it_open",),
    ),
)

DURABILITY = (
    Fault(
        "files-are-renamed-before-they-are-on-disk",
        "resources/storage/durable.py",
        "        for _, _, synced in staged:\n"
        "            synced.result()\n"
        "        before_renames()\n"
        "        for temporary, path, _ in staged:\n"
        "            temporary.replace(path)\n",
        "        before_renames()\n"
        "        for temporary, path, _ in staged:\n"
        "            temporary.replace(path)\n"
        "        for _, _, synced in staged:\n"
        "            synced.result()\n",
        ("resources/storage/test_inbox_files.py::test_what_cannot_be_synced_takes_the_place_of_nothing",),
    ),
    Fault(
        "files-are-renamed-one-by-one-as-they-are-written",
        "resources/storage/durable.py",
        "            staged.append((temporary, path, threads.submit(os.fsync, file.fileno())))\n",
        "            os.fsync(file.fileno())\n"
        "            temporary.replace(path)\n"
        "            sync_folder(path.parent)\n",
        ("resources/storage/test_inbox_files.py",),
    ),
    Fault(
        "a-sweep-takes-the-files-of-living-writers",
        "resources/storage/durable.py",
        "                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        ("resources/storage/test_inbox_files.py::test_a_sweep_takes_what_the_dead_left_and_spares_the_living",),
    ),
    Fault(
        "what-was-unlinked-may-come-back-after-a-crash",
        "resources/storage/durable.py",
        "        path.unlink(missing_ok=True)\n        sync_folder(path.parent)\n",
        "        path.unlink(missing_ok=True)\n",
        ("resources/storage/test_inbox_files.py::test_a_folder_is_synced_once_a_file_in_it_was_unlinked",),
    ),
)

COMMANDS = (
    Fault(
        "telemetry-is-left-to-a-dagster-yaml-of-ones-own",
        "resources/dagster_instance.py",
        "open_instance(str(home), {**_settings(home), **NO_TELEMETRY})",
        "open_instance(str(home), _settings(home))",
        (
            "cli/test_cli_ui.py::test_a_dagster_yaml_of_ones_own_is_kept_to_the_byte_and_only_its_telemetry_does_not_count",
        ),
    ),
    Fault(
        "a-folder-whose-name-is-a-pattern-has-no-settings",
        "resources/dagster_instance.py",
        "load_yaml_from_globs(glob.escape(str(home / CONFIGURATION)))",
        "load_yaml_from_globs(str(home / CONFIGURATION))",
        ("cli/test_cli_ui.py::test_a_prepared_home_has_its_pools_limited_and_telemetry_off",),
    ),
    Fault(
        "relative-folders-are-handed-to-dagster-as-they-are",
        "resources/settings_env.py",
        "        return str(value.resolve())\n    text",
        "        return str(value)\n    text",
        ("cli/test_cli_ui.py::test_a_process_in_another_folder_has_the_settings_that_the_command_read_here",),
    ),
    Fault(
        "a-log-gets-a-bar",
        "dpdau_assets/cli/terminal.py",
        "    if not on_terminal() or console().is_dumb_terminal:\n",
        "    if False:\n",
        (
            "cli/test_cli_terminal.py::test_a_terminal_that_cannot_move_its_cursor_gets_lines",
            "cli/test_cli_terminal.py::test_every_line_is_whole_and_no_other_is_there",
        ),
    ),
    Fault(
        "a-request-in-parquet-is-answered-with-the-endings-of-events",
        "resources/reading/file_names.py",
        '_TEXT_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv")',
        "_TEXT_ENDINGS = tuple(_FORMATS)",
        (
            "resources/reading/test_erasure_files.py::"
            "test_a_file_of_another_kind_is_answered_with_the_endings_that_requests_are_read_from",
        ),
    ),
)

READERS = (
    Fault(
        "a-file-is-made-as-the-umask-says",
        "resources/storage/durable.py",
        "    os.fchmod(descriptor, mode)  # the umask has taken its part\n",
        "",
        ("resources/test_modes.py::test_every_file_that_is_written_is_its_owners_alone_under_any_umask",),
    ),
    Fault(
        "sqlite-makes-the-ledger-itself",
        "resources/ledger_sql/database.py",
        "            create_missing(file)  # before SQLite does",
        "            # before SQLite does",
        ("resources/test_modes.py::test_every_file_that_is_written_is_its_owners_alone_under_any_umask",),
    ),
    Fault(
        "a-new-store-is-begun-with-a-secret-that-can-be-guessed",
        "resources/ledger_sql/ledger.py",
        "            if not fixed:\n",
        "            if fixed:\n",
        ("cli/test_cli_secret.py",),
    ),
    Fault(
        "a-chart-draws-a-line-over-days-without-a-number",
        "resources/published/charts.py",
        "day.day - part[-1].day > timedelta(days=1)",
        "day.day - part[-1].day > timedelta(days=9)",
        ("resources/published/test_charts.py::test_days_without_a_number_are_a_gap_and_not_a_line",),
    ),
    Fault(
        "a-folder-is-opened-with-any-ledger",
        "resources/store.py",
        "    require_of_one_store(settings.data_dir, SqlLedger(database))\n",
        "",
        (
            "resources/storage/test_data_dir.py",
            "dagster/test_resources.py::test_a_launch_that_names_a_folder_and_a_ledger_of_two_stores_changes_neither",
        ),
    ),
    Fault(
        "a-lost-ledger-is-begun-anew-beside-its-files",
        "resources/storage/data_dir.py",
        "        if here != wanted:\n",
        "        if wanted is not None and here != wanted:\n",
        (
            "resources/storage/test_data_dir.py::"
            "test_a_ledger_that_was_lost_is_not_begun_anew_beside_the_files_of_its_store",
        ),
    ),
    Fault(
        "a-ledger-is-restored-beside-the-files-of-another-store",
        "resources/storage/backup_files.py",
        "    if here not in (None, ledger.store_id()) and any(live_files(data_dir)):",
        "    if here not in (None, here) and any(live_files(data_dir)):",
        ("core/publication/test_restoring.py::test_a_ledger_is_not_restored_beside_the_files_of_another_store",),
    ),
    Fault(
        "of-two-ledgers-on-one-folder-both-are-let-in",
        "resources/storage/data_dir.py",
        "        if store_id_in(data_dir) != store_id:\n",
        "        if store_id_in(data_dir) is None:\n",
        (
            "resources/storage/test_data_dir.py::"
            "test_of_two_ledgers_that_are_begun_on_one_folder_at_once_one_is_refused",
        ),
    ),
    Fault(
        "one-ledger-names-two-folders",
        "resources/storage/data_dir.py",
        "            if has_another:\n",
        "            if has_another and not ledger:\n",
        (
            "resources/storage/test_data_dir.py::"
            "test_of_processes_that_begin_one_ledger_on_two_folders_at_once_one_folder_is_named",
        ),
    ),
    Fault(
        "a-cut-short-restore-leaves-its-files-to-any-ledger",
        "resources/storage/data_dir.py",
        "    if staged.exists() and (here != wanted or any(",
        "    if staged.is_file() and (here != wanted or any(",
        (
            "core/publication/test_restoring.py::"
            "test_what_a_restore_that_was_cut_short_has_brought_opens_with_no_ledger_but_its_own",
        ),
    ),
    Fault(
        "another-ledger-makes-a-restore-forget-what-it-has-staged",
        "resources/storage/backup_files.py",
        "        if SqlLedger(database).store_id() == backed_up.store_id() and (",
        "        if SqlLedger(database).store_id() and (",
        (
            "core/publication/test_restoring.py::"
            "test_a_restore_that_names_another_ledger_forgets_nothing_of_the_one_that_was_cut_short",
        ),
    ),
    Fault(
        "a-batch-of-another-store-is-read",
        "resources/storage/inbox_files.py",
        "            self._require_own(batch)\n",
        "",
        (
            "resources/storage/test_inbox_files.py::"
            "test_a_batch_that_was_keyed_under_another_key_of_an_epoch_is_refused_and_stays",
            "core/publication/test_restoring.py::"
            "test_an_inbox_that_nobody_named_the_store_of_is_not_taken_for_the_backups_own",
        ),
    ),
    Fault(
        "a-secret-may-be-typed-into-a-launch",
        "resources/wiring.py",
        "    if value and (is_typed or not is_held_by_a_variable(value)):",
        "    if value and not is_held_by_a_variable(value):",
        ("dagster/test_resources.py::test_a_secret_that_is_typed_into_a_launch_is_refused_and_not_repeated",),
    ),
    Fault(
        "two-runs-come-back-for-the-price-of-one",
        "dpdau_assets/core/publication/restoring.py",
        "    if shown.mechanism_run != run.name:\n",
        "    if shown.mechanism_run < run.name:\n",
        (
            "core/publication/test_restoring.py::"
            "test_numbers_from_before_and_after_another_restore_are_not_taken_back_for_the_price_of_one_run",
        ),
    ),
    Fault(
        "a-number-that-was-never-due-is-taken-back",
        "dpdau_assets/core/publication/restoring.py",
        "            _require_scheduled(row, run, settings)\n",
        "",
        ("core/publication/test_restoring.py::test_a_mart_whose_row_cannot_be_what_was_published_is_refused",),
    ),
    Fault(
        "the-width-of-a-number-is-not-held-to-its-noise",
        "dpdau_assets/core/budget/verification.py",
        "            *_of_another_width(ledger),\n",
        "",
        (
            "core/budget/test_verification.py::"
            "test_a_number_that_is_kept_with_another_width_than_its_noise_has_is_found",
        ),
    ),
    Fault(
        "receipts-do-not-read-what-readers-see",
        "resources/store.py",
        "**home, **_readers_files(settings)",
        "**home",
        ("cli/test_mart_dir.py::test_receipts_read_what_we_write_for_readers_and_not_what_they_put_beside_it",),
    ),
    Fault(
        "a-day-before-the-series-is-promised",
        "dpdau_assets/core/budget/prospects.py",
        "_restated,\n    _closed,\n    _lost,\n    _passed,\n    _no_room,",
        "_restated, _closed, _lost, _no_room,",
        ("core/budget/test_prospects.py",),
    ),
    Fault(
        "a-store-that-is-published-by-hand-is-waited-for-by-nobody",
        "dpdau_assets/core/reporting/checks.py",
        "if store.accountant.releases() or store.is_scheduled():",
        "if store.is_scheduled():",
        ("dagster/test_checks.py::test_a_check_passes_and_fails_once_what_it_guards_is_broken",),
    ),
)

_LOG = "resources/storage/test_write_ahead_log.py"
_FOLDED = "core/state/test_acknowledged.py"
API = (
    Fault(
        "a-fold-misses-what-is-in-the-write-ahead-log",
        "dpdau_assets/core/state/folding.py",
        "    store.events.log.seal()\n",
        "",
        (f"{_FOLDED}::test_a_number_misses_no_acknowledged_event_whoever_holds_the_segment",),
    ),
    Fault(
        "a-receipt-does-not-look-into-the-write-ahead-log",
        "dpdau_assets/core/erasure/inspection.py",
        "for segment in events.log.segments()}",
        "for segment in ()}",
        (f"{_FOLDED}::test_a_receipt_names_the_segment_in_which_a_removed_day_waits_and_the_next_fold_takes_it_out",),
    ),
    Fault(
        "a-frame-that-was-not-synced-is-acknowledged-with-those-after-it",
        "resources/storage/write_ahead_log.py",
        "                self._take_back()\n",
        "",
        (f"{_LOG}::test_where_the_disk_takes_nothing_nothing_is_kept_of_it_and_what_was_there_stays",),
    ),
    Fault(
        "a-writer-goes-on-in-a-segment-that-was-sealed",
        "resources/storage/write_ahead_log.py",
        "                raise SegmentIsGone\n",
        "                pass\n",
        (
            f"{_LOG}::test_a_writer_whose_segment_was_sealed_begins_another_and_loses_nothing",
            f"{_LOG}::test_of_many_that_append_while_others_seal_everything_that_was_told_durable_is_there",
        ),
    ),
    Fault(
        "a-damaged-segment-is-taken-for-one-that-was-cut-short",
        "resources/storage/write_ahead_log.py",
        "if any(_is_head(data, later)",
        "if False and any(_is_head(data, later)",
        (f"{_LOG}::test_a_byte_that_is_changed_before_the_last_frame_is_refused_and_nothing_of_it_is_lost",),
    ),
    Fault(
        "a-segment-of-another-store-is-sealed",
        "resources/storage/write_ahead_log.py",
        "if wanted is not None and commitments != {wanted}:",
        "if False:",
        (f"{_LOG}::test_a_segment_of_another_store_is_refused_and_stays",),
    ),
    Fault(
        "an-event-is-keyed-under-its-own-epoch-alone",
        "dpdau_assets/core/publication/arrivals.py",
        "for epoch in epochs_of_day(day, self._rotation, self._longest):",
        "for epoch in epochs_of_day(day, self._rotation, 1):",
        ("core/publication/test_arrivals.py::test_users_are_keyed_under_every_epoch_that_reaches_their_day",),
    ),
    Fault(
        "a-worker-keeps-a-key-that-was-shredded",
        "dpdau_assets/core/publication/arrivals.py",
        "if shredded is None or epoch > shredded}",
        "if True}",
        (
            "core/publication/test_arrivals.py::"
            "test_a_keying_that_is_made_anew_knows_the_new_day_and_forgets_what_was_shredded",
        ),
    ),
    Fault(
        "the-short-way-takes-events-of-any-day",
        "dpdau_assets/core/events.py",
        "return day if day is not None and limits.first <= day <= limits.last and _has_utf8(user_id) else None",
        "return day if day is not None and _has_utf8(user_id) else None",
        ("core/test_events.py::test_the_short_way_says_of_a_day_what_the_rules_say_and_else_nothing",),
    ),
    Fault(
        "the-guard-forgets-whom-a-client-asked-for-before",
        "dpdau_assets/core/erasure/requests.py",
        "already + len({event.user_id for event in asked})",
        "len({event.user_id for event in asked})",
        ("core/erasure/test_requests.py",),
    ),
    Fault(
        "a-key-is-valid-for-ever",
        "dpdau_assets/core/api_keys.py",
        'return "expired" if self.expires_on is not None and today > self.expires_on else "valid"',
        'return "valid"',
        ("core/test_api_keys.py",),
    ),
    Fault(
        "a-guessable-service-key-is-taken",
        "dpdau_assets/core/api_keys.py",
        "    broken = _unusable(text)\n",
        "    broken = None\n",
        ("core/test_api_keys.py",),
    ),
    Fault(
        "metrics-count-erasure-requests",
        "dpdau_assets/api/metrics.py",
        'if not self._is_exact and (route == _ERASURE or route.startswith(f"{_ERASURE}/")):',
        "if False:",
        ("api/test_metrics.py",),
    ),
    Fault(
        "a-scope-opens-every-route",
        "dpdau_assets/api/access.py",
        "if self.scope not in known.scopes:",
        "if False:",
        ("api/test_refusals.py",),
    ),
    Fault(
        "an-answer-outlives-its-edition",
        "dpdau_assets/api/answering.py",
        "edition = self.store.accountant.edition()",
        "edition = ''",
        ("api/test_numbers.py::test_a_restatement_and_an_override_are_seen_at_once",),
    ),
)

MESSAGES = (
    Fault(
        "a-change-inside-a-month-has-the-noise-of-two-unrelated-numbers",
        "dpdau_assets/core/privacy/changes.py",
        "with_month=one.run != other.run",
        "with_month=True",
        ("core/privacy/test_changes.py", "core/reporting/test_digest.py"),
    ),
    Fault(
        "two-days-of-a-stream-share-nothing",
        "dpdau_assets/core/privacy/changes.py",
        "response_overlap(mechanism.filter, first, last - first)",
        "response_overlap(mechanism.filter, first, 4000)",
        ("core/privacy/test_changes.py",),
    ),
    Fault(
        "two-samples-are-taken-for-independent",
        "dpdau_assets/core/reporting/digest.py",
        "sum(error for error in errors if error is not None)",
        "sum(error * error for error in errors if error is not None) ** 0.5",
        ("core/reporting/test_digest.py::test_with_a_sampled_sketch_the_errors_of_both_numbers_are_added_up",),
    ),
    Fault(
        "a-restated-number-is-compared-with-a-first-one",
        "dpdau_assets/core/reporting/digest.py",
        "rows = [row for row in mart_rows(snapshot) if not row.key.revision]",
        "rows = mart_rows(snapshot)",
        ("core/reporting/test_digest.py::test_what_is_compared_are_numbers_as_first_published_and_no_restated_ones",),
    ),
    Fault(
        "the-digest-tells-of-work-under-way",
        "dpdau_assets/core/reporting/digest.py",
        "if not check.passed and check.name not in _UNDER_WAY:",
        "if not check.passed:",
        ("core/reporting/test_digest.py::test_work_that_is_under_way_needs_nobody",),
    ),
    Fault(
        "what-repeats-is-told-each-time",
        "dpdau_assets/core/security_events.py",
        "0 <= now - self.told_at < SUMMED_SECONDS",
        "0 <= now - self.told_at < 1",
        ("core/test_security_events.py",),
    ),
    Fault(
        "an-outbox-forgets-what-was-not-taken",
        "resources/messages/outbox.py",
        "raise error if isinstance(error, DpdauError) else NotDelivered.by(_setting(name), error) from None",
        "pass",
        ("resources/messages/test_outbox.py", "resources/messages/test_messages.py"),
    ),
    Fault(
        "a-receiver-gets-what-another-has-refused-again",
        "resources/messages/outbox.py",
        "kept.now = kept.now.without(number, name)",
        "kept.now = kept.now",
        ("resources/messages/test_outbox.py", "resources/messages/test_messages.py"),
    ),
    Fault(
        "a-process-without-a-receiver-lets-go-of-what-waits-for-it",
        "resources/messages/outbox.py",
        "name in self._receivers and",
        "self._receivers.setdefault(name, str) and",
        ("resources/messages/test_outbox.py",),
    ),
    Fault(
        "a-slow-receiver-holds-up-who-delivers",
        "resources/messages/outbox.py",
        "self._thread.join(patience)",
        "self._thread.join()",
        (
            "resources/messages/test_outbox.py"
            "::test_a_receiver_that_takes_for_ever_is_waited_for_no_longer_than_asked_and_holds_up_no_other",
        ),
    ),
    Fault(
        "a-publication-fails-where-nobody-can-be-told",
        "dpdau_assets/assets/report.py",
        "with telling(_log.error):",
        "if True:",
        ("dagster/test_digest.py::test_a_publication_and_a_check_do_not_fail_where_nobody_can_be_told",),
    ),
    Fault(
        "a-webhook-with-a-password-is-taken",
        "dpdau_assets/core/budget/settings_check.py",
        'WEBHOOK = re.compile(rf"https?://{_HOST}([/?][!-~]*)?", re.ASCII)',
        'WEBHOOK = re.compile(r"https?://[!-~]+", re.ASCII)',
        ("resources/messages/test_webhook.py",),
    ),
    Fault(
        "a-password-goes-over-plain-smtp",
        "resources/messages/mail.py",
        'if self._user or server.has_extn("starttls"):',
        'if server.has_extn("starttls"):',
        ("resources/messages/test_mail.py::test_a_server_that_offers_no_tls_is_sent_no_password",),
    ),
    Fault(
        "how-many-erasures-were-refused-is-told",
        "dpdau_assets/api/security.py",
        'is_counted=scope != "erase"',
        "is_counted=True",
        ("api/test_security.py::test_of_refused_requests_for_erasures_no_number_is_told",),
    ),
    Fault(
        "a-refused-key-is-told-to-nobody",
        "dpdau_assets/api/access.py",
        "if presented and not isinstance(known, ApiKey):",
        "if known is None:",
        ("api/test_security.py",),
    ),
    Fault(
        "a-restored-ledgers-overrides-are-taken-for-told",
        "dpdau_assets/core/security_events.py",
        'yield f"override {place}: {override}"',
        'yield f"override {place}"',
        ("core/test_security_events.py::test_each_override_is_told_with_who_and_why_under_a_name_of_its_own",),
    ),
)

READING = (
    Fault(
        "a-time-without-a-zone-is-of-the-zone-that-decides-days",
        "dpdau_assets/core/events.py",
        "naive_zone=shape.naive_zone or ZoneInfo(settings.naive_zone)",
        "naive_zone=shape.naive_zone or ZoneInfo(settings.timezone)",
        (
            "cli/test_cases.py::test_a_time_without_a_zone_is_of_naive_zone_whatever_timezone_is",
            "core/test_events.py::test_the_limits_of_a_source_are_those_of_the_store_but_for_what_its_shape_says",
        ),
    ),
    Fault(
        "what-a-source-says-of-its-zone-is-not-heard",
        "dpdau_assets/core/events.py",
        "naive_zone=shape.naive_zone or ZoneInfo(settings.naive_zone)",
        "naive_zone=ZoneInfo(settings.naive_zone)",
        ("core/test_events.py::test_the_limits_of_a_source_are_those_of_the_store_but_for_what_its_shape_says",),
    ),
    Fault(
        "a-request-is-not-spelled-as-the-events-are",
        "dpdau_assets/core/events.py",
        "    if row.user_id and limits.normalize:\n",
        '    if row.user_id and limits.normalize and row.op != "-":\n',
        (
            "resources/reading/test_erasure_files.py::test_a_request_names_whom_the_events_of_this_spelling_are_of",
            "cli/test_cases.py::test_an_erasure_finds_another_spelling_only_as_far_as_ids_are_normalised",
        ),
    ),
    Fault(
        "a-float-that-may-have-been-another-id-is-one",
        "dpdau_assets/core/user_ids.py",
        "EXACT_BELOW, EXACT_BELOW_SINGLE = 2**53, 2**24",
        "EXACT_BELOW, EXACT_BELOW_SINGLE = 2**60, 2**24",
        ("core/test_user_ids.py::test_what_may_have_been_another_id_or_is_no_id_has_no_text",),
    ),
    Fault(
        "a-moment-of-parquets-old-type-is-of-naive-zone",
        "resources/reading/input_file.py",
        "_MOMENT if name in self.utc_columns else kind",
        "_MOMENT if name not in self.names else kind",
        ("cli/test_cases.py::test_a_time_of_parquets_old_type_is_of_utc_whatever_naive_zone_is",),
    ),
    Fault(
        "the-folders-day-wins-over-the-rows",
        "resources/reading/field_sql.py",
        '    own = f"WHEN {_holds(day)} THEN {value}"\n',
        '    own = f"WHEN NOT {_holds(day)} THEN {value}"\n',
        (
            "resources/reading/test_field_sql.py::test_a_row_s_own_day_or_time_comes_before_the_day_of_the_path",
            "cli/test_cases.py::test_a_folders_value_never_stands_in_for_what_the_row_says",
        ),
    ),
    Fault(
        "a-removal-has-to-be-activity",
        "resources/reading/event_sql.py",
        "NOT (active OR broken OR op = '-')",
        "NOT (active OR broken)",
        ("cli/test_cases.py::test_a_removal_is_taken_whether_or_not_its_row_is_activity",),
    ),
    Fault(
        "what-is-activity-and-what-is-not-are-exchanged",
        "resources/reading/field_sql.py",
        "return FieldSql(has_one if active_when.are_active else",
        "return FieldSql(has_one if not active_when.are_active else",
        (
            "resources/reading/test_field_sql.py::test_activity_is_what_has_one_of_the_values",
            "cli/test_cases.py::test_rows_that_are_no_activity_are_counted_apart_and_it_is_told_if_none_is",
        ),
    ),
    Fault(
        "a-vendors-device-comes-before-its-person",
        "resources/reading/presets.py",
        "user_id=user_id|device_id|amplitude_id",
        "user_id=device_id|user_id|amplitude_id",
        (
            "resources/reading/test_presets.py::test_people_counted_through_a_preset_leave_the_state_that_plain_events_leave",
        ),
    ),
    Fault(
        "json-that-names-a-person-twice-is-a-row",
        "resources/reading/json_sources.py",
        "AND len({keys}) = len(list_distinct({keys}))",
        "AND len({keys}) >= len(list_distinct({keys}))",
        (
            "resources/reading/test_engine_duckdb.py::test_bad_json_lines_are_bad_rows_and_blank_ones_are_none",
            "cli/test_cases.py::test_a_json_object_that_names_a_person_twice_is_a_bad_row",
        ),
    ),
    Fault(
        "a-folder-without-a-marker-is-complete",
        "resources/reading/landing_files.py",
        "return any(_is_marked(folder) or self._was_whole(folder) for folder in folders)",
        "return bool(folders)",
        ("resources/reading/test_landing_files.py::test_without_a_marker_a_day_is_not_taken_and_told_to_have_none",),
    ),
    Fault(
        "what-is-younger-than-the-roots-marker-is-complete",
        "resources/reading/landing_files.py",
        "                return _youngest(folder) <= marker.st_mtime_ns\n",
        "                return True\n",
        (
            "resources/reading/test_landing_files.py::"
            "test_what_is_younger_than_the_marker_at_the_root_is_not_finished_until_it_is_written_anew",
        ),
    ),
    Fault(
        "a-day-that-somebody-declared-is-told-to-have-no-marker",
        "dpdau_assets/core/publication/completeness.py",
        "sorted(set(unmarked) - is_declared(store.events, store.accountant))",
        "sorted(unmarked)",
        ("core/reporting/test_status.py::test_it_says_which_days_have_landed_and_have_no_marker",),
    ),
    Fault(
        "every-csv-is-separated-by-commas",
        "resources/reading/event_csv.py",
        "    return max(DELIMITERS, key=fit)\n",
        '    return max(DELIMITERS, key=fit)[:0] or ","\n',
        ("cli/test_cases.py::test_what_separates_the_fields_is_found_out_and_told",),
    ),
    Fault(
        "what-a-csv-is-taken-to-be-separated-by-is-not-told",
        "resources/reading/input_file.py",
        'self.file.delimiter is None and self.delimiter != ","',
        'self.file.delimiter is not None and self.delimiter != ","',
        ("cli/test_cases.py::test_what_separates_the_fields_is_found_out_and_told",),
    ),
    Fault(
        "a-vendors-json-is-refused-without-the-presets-name",
        "dpdau_assets/cli/ingest_options.py",
        "remedy_for_columns(files, shape) if isinstance(error, NoValidRow) else None",
        "remedy_for_columns(files, shape) if not isinstance(error, NoValidRow) else None",
        ("cli/test_cases.py::test_json_whose_columns_are_called_otherwise_is_refused_with_what_to_say",),
    ),
    Fault(
        "a-part-of-the-people-takes-others-too",
        "resources/reading/event_reading.py",
        'f"hash({user_id}) % {self.parts} = {self.number}"',
        'f"hash({user_id}) % {self.parts} <= {self.number}"',
        ("resources/reading/test_engine_duckdb.py::test_more_people_than_memory_holds_are_read_in_parts",),
    ),
    Fault(
        "people-that-do-not-fit-into-memory-go-to-a-folder",
        "resources/reading/engine_duckdb.py",
        '            "temp_directory": "",\n',
        "",
        ("resources/reading/test_engine_duckdb.py::test_duckdb_would_spill_raw_ids_if_it_had_a_folder",),
    ),
    Fault(
        "a-url-with-a-key-in-it-is-read-and-told",
        "resources/reading/remote_files.py",
        "    _require_no_secret(scheme, rest)\n",
        "",
        ("resources/reading/test_locations.py::test_a_url_with_a_password_or_a_key_is_refused_without_telling_it",),
    ),
)

FAULTS = (
    *READING,
    *COMMANDS,
    *OLDER_FILES,
    *TRACES,
    *PROGRESS,
    *MECHANISMS,
    *ACCOUNTING,
    *PLANNING,
    *COST_SO_FAR,
    *ACTIVITY,
    *TOMBSTONES,
    *ERASURE_REQUESTS,
    *RECEIPTS,
    *RELEASE,
    *RESTATEMENT,
    *LEDGER,
    *SALTS,
    *INGEST,
    *SKETCHES,
    *DAY_SKETCH,
    *CHECKS,
    *SENSORS,
    *SCHEDULES,
    *RETENTION,
    *BACKUP,
    *MART,
    *DURABILITY,
    *READERS,
    *API,
    *MESSAGES,
)

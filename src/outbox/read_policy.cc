#include "outbox/read_policy.h"

#include <algorithm>

namespace relay::outbox {

using std::chrono::milliseconds;

namespace {

// Without any announcement the outbox itself is asked this often.
constexpr milliseconds kProbeEvery{1000};
constexpr milliseconds kShortestPause{1};
constexpr milliseconds kLongestPause{10};
// A pause is this part of the time that it has waited.
constexpr int kPauseShare = 8;
// A writer that is open longer is looked at by name.
constexpr milliseconds kShowWriterAfter{100};
constexpr milliseconds kShowWriterEvery{500};
constexpr std::int64_t kFarFromTail = 100;

}  // namespace

void ReadPolicy::restart(std::int64_t id) {
  horizon_ = Horizon(id);
  skipped_to_ = 0;
  next_ = Step::fetch;
}

void ReadPolicy::handed_out(std::int64_t id) {
  if (id >= skipped_.last()) skipped_.clear();
}

ReadPolicy::Query ReadPolicy::begin_statement(ReadLimits limits, std::size_t batches) {
  limits.records *= batches;
  limits.bytes *= batches;
  // Rows that are skipped are not read where they come next.
  if (const std::int64_t end = skipped_.run_end(horizon_.frontier() + 1); end != 0) {
    horizon_.jump_to(end);
    skipped_to_ = end;
  }
  horizon_.begin_read();
  return {horizon_.frontier(), size_.rows(limits)};
}

void ReadPolicy::begin_page(std::int64_t rows) {
  page_ = {};
  page_.asked = rows;
  page_.began_at = horizon_.frontier();
}

ReadPolicy::Verdict ReadPolicy::take(std::int64_t id, std::size_t bytes, bool is_claim_check) {
  ++page_.rows;
  const std::int64_t before = horizon_.frontier();
  if (!horizon_.pass(id)) {
    page_.stopped_at = id;
    return Verdict::leave;
  }
  page_.gap_passed = page_.gap_passed || id != before + 1;
  if (skipped_.contains(id)) {
    page_.bytes += bytes;  // held until the page ends
    skipped_to_ = id;
    return Verdict::skip;
  }
  if (is_claim_check) {
    page_.claim_check = true;
    return Verdict::claim_check;
  }
  page_.bytes += bytes;
  return Verdict::hand_out;
}

bool ReadPolicy::page_is_full(std::size_t records, const ReadLimits& limits) {
  const bool enough = records >= limits.records || page_.bytes >= limits.bytes;
  page_.full = enough && page_.rows < page_.asked;
  return page_.full;
}

std::size_t ReadPolicy::worth_taking(std::int64_t announced) const {
  const std::int64_t asked = page_.asked - page_.rows;
  // More may have been drawn than is known: then the statement is cancelled after all.
  const std::int64_t drawn = known(announced) - frontier();
  return size_.worth_taking(drawn > 0 ? std::min(asked, drawn) : asked, page_.rows, page_.bytes);
}

ReadPolicy::PageEnd ReadPolicy::conclude(const ReadLimits& limits, std::int64_t announced,
                                         Time now) {
  const bool all_came = page_.rows == page_.asked;
  const bool stopped = page_.claim_check || page_.stopped_at != 0;
  const bool all_given = !page_.full && !stopped && !all_came;
  const std::int64_t last_row = frontier();
  if (all_given) horizon_.end_read(page_.until);
  // Where all up to there is passed, the next statement looks further.
  const bool to_the_end = all_given && frontier() < page_.until;
  const bool gap_passed = page_.gap_passed || frontier() != last_row;

  size_.learn(page_.rows, page_.bytes);
  if (page_.claim_check) {
    size_.met_claim_check();
  } else if (all_came) {
    size_.filled();
  }
  if (gap_passed) size_.met_gap(limits);

  sequence_seen_ = std::max(sequence_seen_, frontier());
  behind_ = page_.stopped_at;
  next_probe_ = now + kProbeEvery;
  if (behind_ != 0 || (to_the_end && known(announced) > frontier())) {
    block(page_.began_at, now);
  } else {
    next_ = to_the_end ? Step::wait_for_news : Step::fetch;
  }
  PageEnd end;
  end.goes_on = page_.full && !gap_passed;
  end.leave = page_.full && gap_passed;
  end.read_ahead = !end.goes_on && !stopped && !to_the_end;
  end.gap_passed = gap_passed;
  end.began_at = page_.began_at;
  return end;
}

/// The wait for writers begins, or goes on; where rows were passed since it began, it is another
/// one.
void ReadPolicy::block(std::int64_t began_at, Time now) {
  if (next_ != Step::wait_for_writers || frontier() > began_at) {
    rounds_ = 0;
    blocked_since_ = now;
  }
  next_ = Step::wait_for_writers;
}

bool ReadPolicy::probed(const Tip& tip, Time now) {
  next_probe_ = now + kProbeEvery;
  sequence_seen_ = tip.sequence;
  if (next_ != Step::wait_for_writers) return tip.sequence > frontier() || tip.first != 0;
  behind_ = tip.first;
  return behind_ == frontier() + 1;  // the gap was filled
}

ReadPolicy::Round ReadPolicy::next_round(std::int64_t announced, Time now) {
  const bool first = rounds_++ == 0;
  // Far from the tail a gap is old: it is looked at at once.
  if (first && behind_ != 0 && known(announced) - behind_ >= kFarFromTail) return {};
  const auto share = std::chrono::duration_cast<milliseconds>((now - blocked_since_) / kPauseShare);
  // Most writers commit within a millisecond of drawing an id.
  return {std::clamp(share, kShortestPause, kLongestPause), first && behind_ == 0};
}

ReadPolicy::Look ReadPolicy::looked(std::span<const Holder> holders) {
  horizon_.observe(sequence_seen_, holders);
  if (horizon_.can_advance(behind_)) return Look::fetch;
  if (behind_ != 0 || sequence_seen_ > frontier()) return Look::still_waiting;
  next_ = Step::wait_for_news;
  return Look::nothing_to_wait_for;
}

bool ReadPolicy::is_writer_due(Time now) {
  if (now - blocked_since_ < kShowWriterAfter || now < next_show_) return false;
  next_show_ = now + kShowWriterEvery;
  return true;
}

}  // namespace relay::outbox

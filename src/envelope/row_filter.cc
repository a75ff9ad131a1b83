#include "envelope/row_filter.h"

#include <string>

namespace relay::envelope {

void RowFilter::judge(const Rows& rows) {
  if (!filter_) return;
  refused_.clear();
  verdicts_.assign(rows.size(), Verdict::pass);
  std::string why;
  for (std::uint32_t row = 0; row < rows.size(); ++row) {
    const auto answer = filter_->test({&rows, row}, reader_, false, why);
    if (answer == Filter::Answer::pass) continue;
    verdicts_[row] = Verdict::leave_out;
    if (answer == Filter::Answer::cannot_say) {
      verdicts_[row] = Verdict::refuse;
      refused_[row] = refusals_.get("filter", why, "correct the filter and retry the dead letter");
    }
  }
}

std::optional<Change> RowFilter::judged(const Change& change) const {
  if (!change.is_pair()) {
    if (verdicts_[change.row()] == Verdict::leave_out) return std::nullopt;
    return change;
  }
  const Verdict old_row = verdicts_[change.old_row];
  const Verdict new_row = verdicts_[change.new_row];
  if (old_row == Verdict::refuse || new_row == Verdict::refuse) return change;
  const bool leaves = new_row == Verdict::leave_out;
  const bool enters = old_row == Verdict::leave_out;
  if (leaves && enters) return std::nullopt;
  if (enters) return Change{Op::insert, kNoRow, change.new_row, 0, false};
  if (leaves) return Change{Op::remove, change.old_row, kNoRow, 0, false};
  return change;
}

SharedError RowFilter::found_refusal(const Change& change) const {
  if (change.is_pair()) {
    if (const auto found = refused_.find(change.old_row); found != refused_.end()) {
      return found->second;
    }
  }
  const auto found = refused_.find(change.row());
  return found != refused_.end() ? found->second : nullptr;
}

}  // namespace relay::envelope

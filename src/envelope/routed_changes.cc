#include "envelope/routed_changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace relay::envelope {

void RoutedChanges::set(const Rows& rows, std::span<const Change> paired) {
  changes_.clear();
  inserts_.clear();
  routes_.clear();
  numbers_.clear();
  filter_.judge(rows);
  for (const Change& change : paired) {
    if (const auto left = filter_.apply(change)) add(rows, *left);
  }
  std::sort(inserts_.begin(), inserts_.end(),
            [](const Change& a, const Change& b) { return a.new_row < b.new_row; });
  changes_.insert(changes_.end(), inserts_.begin(), inserts_.end());
}

void RoutedChanges::add(const Rows& rows, const Change& change) {
  if (SharedError why = filter_.refusal(change)) {
    renderer_.refuse(rendered_, std::move(why));
    push(change);
  } else if (change.is_pair()) {
    add_update(rows, change);
  } else {
    add_single(rows, change);
  }
}

void RoutedChanges::add_single(const Rows& rows, const Change& change) {
  renderer_.render_row(rendered_, to_string(change.op), rows, change.row());
  push(change);
}

void RoutedChanges::add_update(const Rows& rows, const Change& change) {
  renderer_.render_row(rendered_, to_string(Op::update), rows, change.new_row);
  if (plan_.varies_by_row) {
    renderer_.render_row(old_rendered_, to_string(Op::update), rows, change.old_row);
    // Without a template the key is the row's, and old and new row have the same one.
    const bool same_route = rendered_.subject() == old_rendered_.subject() &&
                            (!plan_.key || rendered_.key() == old_rendered_.key());
    const bool refused = rendered_.refused != nullptr || old_rendered_.refused != nullptr;
    if (!refused && !same_route) {
      add_single(rows, {Op::remove, change.old_row, kNoRow, 0, true});
      add_single(rows, {Op::insert, kNoRow, change.new_row, 0, true});
      return;
    }
    if (rendered_.refused == nullptr && old_rendered_.refused != nullptr) {
      renderer_.refuse(rendered_, old_rendered_.refused);
    }
  }
  push(change);
}

void RoutedChanges::push(Change change) {
  change.route = number_of(rendered_);
  (change.op == Op::insert ? inserts_ : changes_).push_back(change);
}

std::uint32_t RoutedChanges::number_of(const RenderedRoute& rendered) {
  const auto newest = static_cast<std::uint32_t>(routes_.size());
  if (plan_.row_mode) {  // each row is a message, and routes are not shared
    routes_.push_back(renderer_.keep(rendered));
    return newest;
  }
  if (newest != 0 && rendered == last_) return last_number_;
  // Lengths first: without them two routes could read the same.
  std::string name = fmt::format("{},{},", rendered.subject_end, rendered.key_end);
  for (const std::size_t end : rendered.header_ends) name += fmt::format("{},", end);
  name += rendered.refused ? "!" + rendered.refused->message : rendered.text;
  const auto [place, is_new] = numbers_.emplace(std::move(name), newest);
  if (is_new) routes_.push_back(renderer_.keep(rendered));
  last_ = rendered;
  last_number_ = place->second;
  return last_number_;
}

}  // namespace relay::envelope

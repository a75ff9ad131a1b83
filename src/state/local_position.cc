#include "state/local_position.h"

#include <utility>

#include "state/missing_schema.h"

namespace relay::state {

namespace {

constexpr std::chrono::milliseconds kWriteEvery{50};
constexpr std::chrono::seconds kTimeout{10};
constexpr std::chrono::seconds kFlushTimeout{2};

tl::unexpected<Error> no_database() {
  return fail(ErrorClass::misconfigured, "no_database",
              "the relay's own database, which keeps the position, is not known",
              "set the relay's postgres_url");
}

}  // namespace

Result<bool> LocalPosition::exists(const std::string& incarnation, std::stop_token stop) {
  if (!database_) return no_database();
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = database_->borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  const auto found = (*lease)->query(
      "select from pgtrickle.relay_consumer_offsets "
      "where relay_group_id = $1 and pipeline_id = $2 and incarnation = $3::uuid",
      {group_, pipeline_, incarnation}, deadline, std::move(stop));
  if (!found) return fail(explain_missing_schema(found.error()));
  return !found->empty();
}

Result<Ownership> LocalPosition::claim(const std::string& incarnation, const Start& start,
                                       std::stop_token stop) {
  if (!database_) return no_database();
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = database_->borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  auto owned = claim_position(**lease, incarnation, {group_, pipeline_}, worker_, start, {},
                              deadline, std::move(stop));
  if (!owned) return fail(owned.error());
  const MutexLock lock(mutex_);
  incarnation_ = incarnation;
  token_ = owned->token;
  settled_ = owned->position;
  due_ = false;
  fenced_.reset();
  return owned;
}

Result<bool> LocalPosition::restart_if_allowed(std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = database_->borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  const auto allowed = consume_loss_acceptance(**lease, pipeline_, deadline, stop);
  if (!allowed || !*allowed) return allowed;
  lease->release();  // the next statement borrows a connection too, and this may be the only one
  if (auto set = rewind({}, std::move(stop)); !set) return fail(set.error());
  return true;
}

Result<void> LocalPosition::rewind(const Position& position, std::stop_token stop) {
  const Deadline deadline = Deadline::after(kTimeout);
  auto lease = database_->borrow(deadline, stop);
  if (!lease) return fail(lease.error());
  const MutexLock lock(mutex_);
  auto set = rewind_position(**lease, incarnation_, {group_, pipeline_}, token_, position, false,
                             deadline, std::move(stop));
  if (!set) return set;
  settled_ = position;
  due_ = false;
  return {};
}

Result<void> LocalPosition::settle(const Position& position) {
  {
    const MutexLock lock(mutex_);
    if (fenced_) return fail(*fenced_);
    const bool again = position == settled_;
    if (!again) due_ = true;
    settled_ = position;
    if (!due_ || (!again && SteadyClock::now() - written_at_ < kWriteEvery)) return {};
  }
  return write(position, Deadline::after(kTimeout));
}

Result<void> LocalPosition::flush() {
  Position position;
  {
    const MutexLock lock(mutex_);
    if (!due_ || fenced_) return {};
    position = settled_;
  }
  return write(position, Deadline::after(kFlushTimeout));
}

Result<void> LocalPosition::write(const Position& position, Deadline deadline) {
  std::string incarnation;
  std::string token;
  {
    const MutexLock lock(mutex_);
    incarnation = incarnation_;
    token = token_;
  }
  auto lease = database_->borrow(deadline, {});
  if (!lease) return fail(lease.error());
  const auto done = (*lease)->query(
      "select case when set_config('synchronous_commit', 'off', true) is not null "
      "then pgtrickle.relay_commit_position($1, $2, $3::uuid, $4::uuid, $5, $6, $7) end",
      {group_, pipeline_, incarnation, token, std::to_string(position.id),
       std::to_string(position.row), position.mark.empty() ? postgres::Param() : position.mark},
      deadline, {});
  if (!done) return fail(done.error());
  const MutexLock lock(mutex_);
  if (done->boolean(0, 0)) {
    due_ = false;
    written_at_ = SteadyClock::now();
    return {};
  }
  fenced_ = fenced_by_another({group_, pipeline_});
  return fail(*fenced_);
}

bool LocalPosition::claimed() const {
  const MutexLock lock(mutex_);
  return !token_.empty();
}

Position LocalPosition::settled() const {
  const MutexLock lock(mutex_);
  return settled_;
}

}  // namespace relay::state

#include "outbox/row_stream.h"

#include <exception>
#include <string>
#include <utility>
#include <vector>

namespace relay::outbox {

namespace {

constexpr std::chrono::seconds kRowTimeout{60};
constexpr std::chrono::seconds kAbandonTimeout{5};

}  // namespace

Result<RowStream> RowStream::send(postgres::Lease lease, RowDecoder& decoder, std::int64_t beyond,
                                  std::int64_t to, std::int64_t rows, const Position& last,
                                  const std::string& history) {
  std::vector<postgres::Param> params = {std::to_string(beyond), std::to_string(to),
                                         std::to_string(rows)};
  if (decoder.compares_history()) {
    params.emplace_back(std::to_string(last.id));
    params.push_back(last.mark.empty() ? postgres::Param() : postgres::Param(last.mark));
    params.push_back(history.empty() ? postgres::Param() : postgres::Param(history));
  }
  auto sent = lease->start(decoder.rows_sql(), params, postgres::Connection::Format::binary);
  if (!sent) return fail(sent.error());
  return RowStream(std::move(lease), decoder, rows);
}

Result<bool> RowStream::next(std::stop_token stop) {
  // Each row has the whole time: a slow link is no error.
  auto next = lease_->next_row(kRowTimeout, std::move(stop));
  if (!next) return fail(next.error());
  result_ = std::move(*next);
  if (!result_) return false;
  --left_;
  return true;
}

void RowStream::leave(std::size_t worth_taking) {
  for (; worth_taking > 0; --worth_taking) {
    const auto next = lease_->next_row(kRowTimeout, {});
    if (!next || !*next) return;
  }
  cancel(Deadline::after(kAbandonTimeout));
}

StreamKeeper::StreamKeeper(postgres::Pool& pool, postgres::Code code) : pool_(pool), code_(code) {
  pool_.add_keeper(this);
}

StreamKeeper::~StreamKeeper() {
  pool_.remove_keeper(this);
  try {
    drop();
  } catch (const std::exception&) {
    // Without memory a statement may not be ended in order; its connection is closed then.
  }
}

void StreamKeeper::keep(RowStream stream) {
  {
    const MutexLock lock(mutex_);
    kept_.emplace(std::move(stream));
  }
  // Another pipeline may have begun to wait before there was a stream that it could ask for.
  if (pool_.contended(code_)) drop();
}

std::optional<RowStream> StreamKeeper::take() {
  const MutexLock lock(mutex_);
  return std::exchange(kept_, std::nullopt);
}

void StreamKeeper::drop() {
  give_back({}, Deadline::after(kAbandonTimeout));
}

void StreamKeeper::give_back(std::chrono::milliseconds unused, Deadline deadline) {
  std::optional<RowStream> stream;
  {
    const MutexLock lock(mutex_);
    if (!kept_ || SteadyClock::now() - kept_->sent_at() < unused) return;
    stream = std::exchange(kept_, std::nullopt);
  }
  stream->cancel(deadline.earlier(Deadline::after(kAbandonTimeout)));
}

}  // namespace relay::outbox

#include "stream/assembler.h"

#include <algorithm>
#include <utility>

namespace relay::stream {

namespace pgoutput = postgres::pgoutput;

Result<Assembler::Step> Assembler::take(const pgoutput::Message& message) {
  if (const auto* begun = std::get_if<pgoutput::Begin>(&message)) {
    begin(*begun);
  } else if (const auto* relation = std::get_if<const pgoutput::Relation*>(&message)) {
    if (auto learnt = reader_.learn(**relation); !learnt) return fail(learnt.error());
  } else if (const auto* inserted = std::get_if<pgoutput::Insert>(&message)) {
    return insert(*inserted);
  } else if (const auto* committed = std::get_if<pgoutput::Commit>(&message)) {
    return commit(*committed);
  }
  return Step();
}

void Assembler::begin(const pgoutput::Begin& begun) {
  commit_at_ = begun.final_lsn;
  covered_ = before_.covers(commit_at_) || commit_at_ < received_;
  seen_ = 0;
}

Result<Assembler::Step> Assembler::insert(const pgoutput::Insert& inserted) {
  if (covered_) return Step();
  auto row = reader_.read(inserted);
  if (!row) return fail(row.error());
  if (!*row) return Step();
  ++seen_;
  if (seen_ == 1) {
    covered_ = before_.covers((*row)->xid);
    if (covered_) return Step();
    if (n_ == 0 || n_commit_at_ != commit_at_) {
      n_ = ++last_n_;
      n_commit_at_ = commit_at_;
      xid_ = (*row)->xid;
      given_ = 0;
    }
  }
  if (seen_ <= given_) return Step();
  given_ = seen_;
  return Event{n_, given_, **row};
}

Assembler::Step Assembler::commit(const pgoutput::Commit& committed) {
  const bool has_events = !covered_ && seen_ > 0;
  if (covered_ && committed.end_lsn <= received_) return {};
  received_ = std::max(received_, committed.end_lsn);
  if (!has_events) return Passed{committed.end_lsn};
  return End{std::exchange(n_, 0), xid_, committed.end_lsn, given_};
}

void Assembler::session_ended() {
  reader_ = {};
}

}  // namespace relay::stream

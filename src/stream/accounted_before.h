#pragma once

#include <string_view>
#include <unordered_set>
#include <vector>

#include "postgres/lsn.h"
#include "stream/snapshot.h"

namespace relay::stream {

/// What was accounted for before this run, as it was stored. A slot may begin far before it: after
/// a crash of the server, or when it was made anew. Pure.
class AccountedBefore {
 public:
  AccountedBefore() = default;
  /// All that committed up to `recorded` is accounted for; so is what `snapshot` sees, and what
  /// `also` names.
  AccountedBefore(postgres::Lsn recorded, Snapshot snapshot, const std::vector<Xid>& also)
      : recorded_(recorded), snapshot_(std::move(snapshot)), also_(also.begin(), also.end()) {}

  /// Of a transaction whose commit record is there.
  bool covers(postgres::Lsn commit_record) const { return commit_record < recorded_; }
  bool covers(Xid xid) const { return snapshot_.sees(xid) || also_.contains(xid); }

 private:
  postgres::Lsn recorded_;
  Snapshot snapshot_;
  std::unordered_set<Xid> also_;
};

}  // namespace relay::stream

#pragma once

#include <map>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "coordinator/cause_rules.h"
#include "ownership/lease_session.h"
#include "postgres/connection.h"
#include "status/status.h"

namespace relay::coordinator {

/// The statements by which the coordinator reads about its pipelines and writes their status.
/// Called by the thread of the session.

/// The sessions that keep relays waiting, as far as the database shows them. Takes no lock on a
/// table of the relay.
Result<std::vector<status::Blocker>> read_blockers(postgres::Connection& connection,
                                                   Deadline deadline, std::stop_token stop);
/// Unresolved dead letters of the session's group, by pipeline.
Result<std::map<std::string, DeadLetterCount>> count_dead_letters(ownership::LeaseSession& session,
                                                                  std::stop_token stop);
/// Stream tables of the relay whose last refresh failed.
Result<std::vector<StreamFailure>> read_stream_failures(ownership::LeaseSession& session,
                                                        std::stop_token stop);
/// The logical replication slots of the database, those of other programs too.
Result<std::vector<ReplicationSlot>> read_slots(postgres::Connection& connection, Deadline deadline,
                                                std::stop_token stop);
/// By the sequence of the outbox.
Result<std::map<std::string, status::OutboxProblem>> read_outbox_problems(
    ownership::LeaseSession& session, std::stop_token stop);
/// Marks these pipelines as stopped, and deletes the status of those that the catalog does not
/// have (any more). Leaves out rows that another transaction has locked.
Result<void> end_status(ownership::LeaseSession& session, std::span<const std::string> pipelines,
                        std::stop_token stop);
/// Leaves out rows that another transaction has locked; the names of the pipelines that were
/// written.
Result<std::set<std::string>> write_status(ownership::LeaseSession& session,
                                           std::span<const status::PipelineStatus> statuses,
                                           std::stop_token stop);

}  // namespace relay::coordinator

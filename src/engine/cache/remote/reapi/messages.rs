//! Messages of the services that a cache of REAPI v2 has: capabilities, action cache, content-addressed storage, and
//! byte streams.
//!
//! Field numbers are those of `remote_execution.proto`, `semver.proto`, `bytestream.proto` and `status.proto`. Fields
//! that atflow neither writes nor reads are left out. Written by hand, because a compiler of protocol buffers is not on
//! every machine.

use prost::Message;

use super::super::action_result::{ActionResult, CasDigest};

/// `DigestFunction.Value.SHA256`.
pub(super) const SHA256: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetCapabilitiesRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerCapabilities {
    #[prost(message, optional, tag = "1")]
    pub(super) cache_capabilities: Option<CacheCapabilities>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CacheCapabilities {
    #[prost(int32, repeated, tag = "1")]
    pub(super) digest_functions: Vec<i32>,
    #[prost(message, optional, tag = "2")]
    pub(super) action_cache_update_capabilities: Option<ActionCacheUpdateCapabilities>,
    #[prost(int64, tag = "4")]
    pub(super) max_batch_total_size_bytes: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ActionCacheUpdateCapabilities {
    #[prost(bool, tag = "1")]
    pub(super) update_enabled: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetActionResultRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) action_digest: Option<CasDigest>,
    #[prost(string, repeated, tag = "5")]
    pub(super) inline_output_files: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateActionResultRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) action_digest: Option<CasDigest>,
    #[prost(message, optional, tag = "3")]
    pub(super) action_result: Option<ActionResult>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FindMissingBlobsRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) blob_digests: Vec<CasDigest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FindMissingBlobsResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) missing_blob_digests: Vec<CasDigest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchUpdateBlobsRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) requests: Vec<BlobData>,
}

/// A blob to write; also one that was read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobData {
    #[prost(message, optional, tag = "1")]
    pub(super) digest: Option<CasDigest>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: bytes::Bytes,
    /// Outcome of reading.
    #[prost(message, optional, tag = "3")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchUpdateBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) responses: Vec<BlobStatus>,
}

/// Outcome of writing a blob.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BlobStatus {
    #[prost(message, optional, tag = "1")]
    pub(super) digest: Option<CasDigest>,
    #[prost(message, optional, tag = "2")]
    pub(super) status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchReadBlobsRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) digests: Vec<CasDigest>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BatchReadBlobsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) responses: Vec<BlobData>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadRequest {
    #[prost(string, tag = "1")]
    pub(super) resource_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadResponse {
    #[prost(bytes = "bytes", tag = "10")]
    pub(super) data: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteRequest {
    /// In the first message of a stream.
    #[prost(string, tag = "1")]
    pub(super) resource_name: String,
    #[prost(int64, tag = "2")]
    pub(super) write_offset: i64,
    #[prost(bool, tag = "3")]
    pub(super) finish_write: bool,
    #[prost(bytes = "bytes", tag = "10")]
    pub(super) data: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WriteResponse {
    #[prost(int64, tag = "1")]
    pub(super) committed_size: i64,
}

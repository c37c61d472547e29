//! containerd's images: names and labels that point at manifests.

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
    UpdateImageRequest,
};
use containerd_client::types::Descriptor;
use reprise_runtime::{Error, ErrorKind, Result};

use super::client::{mask, optional, to_map};
use super::{Client, Labels};

/// An image's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The full reference.
    pub(crate) name: String,
    /// Labels of the record; nothing that a registry serves can set them.
    pub(crate) labels: Labels,
    /// The manifest or index.
    pub(crate) digest: String,
    /// Its media type.
    pub(crate) media_type: String,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

impl From<Image> for Record {
    fn from(image: Image) -> Self {
        let target = image.target.unwrap_or_default();
        Self {
            name: image.name,
            labels: image.labels.into_iter().collect(),
            digest: target.digest,
            media_type: target.media_type,
            bytes: u64::try_from(target.size).unwrap_or_default(),
        }
    }
}

impl From<&Record> for Image {
    fn from(record: &Record) -> Self {
        Self {
            name: record.name.clone(),
            labels: to_map(&record.labels),
            target: Some(Descriptor {
                media_type: record.media_type.clone(),
                digest: record.digest.clone(),
                size: i64::try_from(record.bytes).unwrap_or(i64::MAX),
                ..Descriptor::default()
            }),
            ..Self::default()
        }
    }
}

impl Client {
    fn images(&self) -> ImagesClient<containerd_client::tonic::transport::Channel> {
        ImagesClient::new(self.channel.clone())
    }

    /// An image's record, if there is one.
    pub(crate) fn image(&self, name: &str) -> Result<Option<Record>> {
        let request = self.request(GetImageRequest {
            name: name.to_owned(),
        });
        let mut client = self.images();
        let found = self.call(
            format_args!("Cannot look at image {name}"),
            client.get(request),
        );
        Ok(optional(found)?
            .and_then(|answer| answer.image)
            .map(Record::from))
    }

    /// Images that fit one of containerd's filters (`labels."a"==b`); all without any.
    pub(crate) fn list_images(&self, filters: &[String]) -> Result<Vec<Record>> {
        let request = self.request(ListImagesRequest {
            filters: filters.to_vec(),
        });
        let mut client = self.images();
        let answer = self.call("Cannot list images", client.list(request))?;
        Ok(answer.images.into_iter().map(Record::from).collect())
    }

    /// Makes an image's record.
    ///
    /// # Errors
    /// AlreadyExists.
    pub(crate) fn create_image(&self, record: &Record) -> Result<()> {
        let request = self.request(CreateImageRequest {
            image: Some(record.into()),
            ..CreateImageRequest::default()
        });
        let mut client = self.images();
        let doing = format_args!("Cannot make image {}", record.name);
        self.call(doing, client.create(request)).map(drop)
    }

    /// Makes an image's record, or moves the one that has its name to its manifest;
    /// labels that it does not name stay then.
    pub(crate) fn put_image(&self, record: &Record) -> Result<()> {
        match self.create_image(record) {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            done => return done,
        }
        let mut what = mask(&record.labels);
        what.paths.push("target".to_owned());
        self.update_image(record, what)
    }

    /// Sets labels of an image's record; others stay.
    pub(crate) fn relabel_image(&self, name: &str, labels: &Labels) -> Result<()> {
        let record = self.image(name)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("There is no image {name} in namespace {}", self.namespace()),
            )
        })?;
        let record = Record {
            labels: labels.clone(),
            ..record
        };
        let what = mask(labels);
        self.update_image(&record, what)
    }

    fn update_image(&self, record: &Record, what: prost_types::FieldMask) -> Result<()> {
        let request = self.request(UpdateImageRequest {
            image: Some(record.into()),
            update_mask: Some(what),
            ..UpdateImageRequest::default()
        });
        let mut client = self.images();
        let doing = format_args!("Cannot update image {}", record.name);
        self.call(doing, client.update(request)).map(drop)
    }

    /// Removes an image's record; with `sync` what it kept is gone, too, when this
    /// returns. None there is no error.
    pub(crate) fn remove_image(&self, name: &str, sync: bool) -> Result<()> {
        let request = self.request(DeleteImageRequest {
            name: name.to_owned(),
            sync,
            ..DeleteImageRequest::default()
        });
        let mut client = self.images();
        let removed = self.call(
            format_args!("Cannot remove image {name}"),
            client.delete(request),
        );
        optional(removed).map(drop)
    }
}

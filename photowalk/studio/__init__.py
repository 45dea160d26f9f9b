"""The studio: worlds of several people, in the browser and over HTTP, around one queue and one generating process."""

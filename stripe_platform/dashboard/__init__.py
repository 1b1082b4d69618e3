"""Charts over the published marts, served locally by Streamlit."""
